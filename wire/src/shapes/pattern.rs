//! The longer regular expressions of the service model, as code: each in one pass over the text.

pub(super) use super::constraint::is_name;

/// `arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+`
pub(super) fn is_resource_arn(text: &str) -> bool {
    let after_account = |rest: &str| {
        ["stream/", "channel/", "queue/"].iter().any(|kind| {
            rest.match_indices(kind)
                .any(|(at, _)| is_path(&rest[at + kind.len()..]))
        })
    };
    kinesis_accounts(text).next().is_some_and(after_account)
}

/// `arn:aws.*:kinesis:.*:\d{12}:queue/\S+`
pub(super) fn is_queue_arn(text: &str) -> bool {
    is_arn_of(text, "queue/")
}

/// `arn:aws.*:kinesis:.*:\d{12}:channel/\S+`
pub(super) fn is_channel_arn(text: &str) -> bool {
    is_arn_of(text, "channel/")
}

fn is_arn_of(text: &str, kind: &str) -> bool {
    kinesis_accounts(text).any(|rest| rest.strip_prefix(kind).is_some_and(is_path))
}

/// What follows each `:\d{12}:` behind the first `:kinesis:` of an ARN, from the left.
fn kinesis_accounts(text: &str) -> impl Iterator<Item = &str> {
    const SERVICE: &str = ":kinesis:";
    let one_line = !text.contains(['\n', '\r']);
    let rest = text.strip_prefix("arn:aws").filter(|_| one_line);
    let rest = rest.and_then(|rest| Some(&rest[rest.find(SERVICE)? + SERVICE.len()..]));
    let rest = rest.unwrap_or_default();
    rest.match_indices(':').filter_map(|(colon, _)| {
        let (account, after) = rest[colon + 1..].split_once(':')?;
        is_account(account).then_some(after)
    })
}

/// `\S+`
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// `\d{12}`
pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `arn:aws[-a-z0-9]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+`
pub(super) fn is_role_arn(text: &str) -> bool {
    let Some([partition, service, region, account, resource]) = arn(text) else {
        return false;
    };
    let named = |name: &str| {
        is_some_of(name, |b| {
            b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b)
        })
    };
    is_partition(partition)
        && service == "iam"
        && region.is_empty()
        && is_account(account)
        && resource.strip_prefix("role/").is_some_and(named)
}

/// `arn:aws[-a-z0-9]*:s3:::[a-z0-9._-]{3,63}`
pub(super) fn is_bucket_arn(text: &str) -> bool {
    let Some([partition, service, region, account, bucket]) = arn(text) else {
        return false;
    };
    let letter = |b: u8| is_lower(b) || b"._-".contains(&b);
    is_partition(partition)
        && (service, region, account) == ("s3", "", "")
        && (3..=63).contains(&bucket.len())
        && is_some_of(bucket, letter)
}

/// `arn:aws[-a-z0-9]*:s3tables:[-a-z0-9]+:\d{12}:bucket/[a-z0-9_-]{3,63}`
pub(super) fn is_table_bucket_arn(text: &str) -> bool {
    let Some([partition, service, region, account, resource]) = arn(text) else {
        return false;
    };
    let letter = |b: u8| is_lower(b) || b"_-".contains(&b);
    let named = |name: &str| (3..=63).contains(&name.len()) && is_some_of(name, letter);
    is_partition(partition)
        && service == "s3tables"
        && is_some_of(region, |b| is_lower(b) || b == b'-')
        && is_account(account)
        && resource.strip_prefix("bucket/").is_some_and(named)
}

/// `arn:aws[-a-z0-9]*:glue:[-a-z0-9]+:\d{12}:schema/[-a-zA-Z0-9_$#.]+/[-a-zA-Z0-9_$#.]+`
pub(super) fn is_schema_arn(text: &str) -> bool {
    let Some([partition, service, region, account, resource]) = arn(text) else {
        return false;
    };
    let named =
        |name: &str| is_some_of(name, |b| b.is_ascii_alphanumeric() || b"-_$#.".contains(&b));
    let schema = resource.strip_prefix("schema/");
    is_partition(partition)
        && service == "glue"
        && is_some_of(region, |b| is_lower(b) || b == b'-')
        && is_account(account)
        && schema
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(registry, schema)| named(registry) && named(schema))
}

/// `[\.\-_/#A-Za-z0-9]+`
pub(super) fn is_log_group(text: &str) -> bool {
    is_some_of(text, |b| b.is_ascii_alphanumeric() || b".-_/#".contains(&b))
}

/// `[^:*]*`
pub(super) fn is_log_stream(text: &str) -> bool {
    !text.contains([':', '*'])
}

/// `[a-zA-Z0-9\.\_]+`
pub(super) fn is_source_name(text: &str) -> bool {
    is_some_of(text, |b| b.is_ascii_alphanumeric() || b"._".contains(&b))
}

/// `[0-9a-z_]+`
pub(super) fn is_table_name(text: &str) -> bool {
    is_some_of(text, |b| is_lower(b) || b == b'_')
}

/// `[0-9A-Za-z!\-_'.*()\/]+`
pub(super) fn is_prefix(text: &str) -> bool {
    is_some_of(text, is_key_byte)
}

/// `[0-9A-Za-z!\-_'.*()\/=:{}]+`
pub(super) fn is_key_template(text: &str) -> bool {
    is_some_of(text, |b| is_key_byte(b) || b"=:{}".contains(&b))
}

fn is_key_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!-_'.*()/".contains(&b)
}

fn is_lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_some_of(text: &str, each: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(each)
}

fn is_partition(text: &str) -> bool {
    text.strip_prefix("aws")
        .is_some_and(|rest| rest.bytes().all(|b| is_lower(b) || b == b'-'))
}

/// The five parts of an ARN behind `arn:`.
fn arn(text: &str) -> Option<[&str; 5]> {
    let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
    let mut next = || parts.next();
    Some([next()?, next()?, next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_arns_match_as_the_expression_does() {
        for text in [
            "arn:aws:kinesis:us-east-1:000000000000:stream/a",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/b:1",
            "arn:aws:kinesis::000000000000:queue/q",
            "arn:aws-cn:kinesis:x:y:000000000000:anything channel/c",
            "arn:aws:kinesis:111111111111:000000000000:stream/é",
        ] {
            assert!(is_resource_arn(text), "{text}");
        }
        for text in [
            "",
            "arn:aws:kinesis:us-east-1:000000000000:stream/",
            "arn:aws:kinesis:us-east-1:000000000000:stream/a b",
            "arn:aws:kinesis:us-east-1:000000000000:topic/a",
            "arn:aws:kinesis:000000000000:stream/a",
            "arn:aws:kinesis:us-east-1:0000:stream/a",
            "arn:aws:sqs:us-east-1:000000000000:queue/a",
            "arn:aws:kinesis:us-east-1\n:000000000000:stream/a",
        ] {
            assert!(!is_resource_arn(text), "{text}");
        }
        assert!(is_queue_arn("arn:aws:kinesis:r:000000000000:queue/q"));
        assert!(!is_queue_arn("arn:aws:kinesis:r:000000000000:xqueue/q"));
        assert!(is_channel_arn("arn:aws:kinesis:r:000000000000:channel/c"));
    }

    #[test]
    fn arns_of_other_services_match_as_the_expressions_do() {
        assert!(is_role_arn("arn:aws:iam::000000000000:role/a/b+c"));
        assert!(!is_role_arn("arn:aws:iam:r:000000000000:role/a"));
        assert!(is_bucket_arn("arn:aws:s3:::my-bucket"));
        assert!(!is_bucket_arn("arn:aws:s3:::My"));
        assert!(is_table_bucket_arn(
            "arn:aws:s3tables:eu-west-1:000000000000:bucket/abc"
        ));
        assert!(!is_table_bucket_arn(
            "arn:aws:s3tables::000000000000:bucket/abc"
        ));
        assert!(is_schema_arn("arn:aws:glue:r:000000000000:schema/a/b"));
        assert!(!is_schema_arn("arn:aws:glue:r:000000000000:schema/a/b/c"));
        assert!(is_prefix("a/b!") && !is_prefix("a=b") && is_key_template("{a=b}"));
        assert!(is_log_stream("") && !is_log_stream("a:b"));
    }
}
