//! AWS's endpoints by region: partitions, FIPS and dual stack. Source: the endpoint rules of Kinesis in botocore.

use crate::error::{Error, ErrorKind};
use millstream_wire::Region;

/// Which of a region's endpoints is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Variant {
    /// Cryptography validated by FIPS 140 (`AWS_USE_FIPS_ENDPOINT`).
    pub(super) fips: bool,
    /// IPv6 as well as IPv4 (`AWS_USE_DUALSTACK_ENDPOINT`).
    pub(super) dual_stack: bool,
}

/// A partition: how its regions begin, and what its names end with; the latter also with dual stack, where it has that.
const PARTITIONS: [(&str, &str, Option<&str>); 8] = [
    (
        "cn-",
        "amazonaws.com.cn",
        Some("api.amazonwebservices.com.cn"),
    ),
    ("us-isob-", "sc2s.sgov.gov", None),
    ("us-isof-", "csp.hci.ic.gov", None),
    ("eu-isoe-", "cloud.adc-e.uk", None),
    ("us-iso-", "c2s.ic.gov", None),
    ("eusc-", "amazonaws.eu", Some("api.amazonwebservices.eu")),
    ("us-gov-", "amazonaws.com", Some("api.aws")),
    ("", "amazonaws.com", Some("api.aws")),
];

/// The URL of Kinesis in a region.
///
/// # Errors
/// `Configuration`: no name of a region, or there is no such endpoint.
pub(super) fn aws_endpoint(region: &str, variant: Variant) -> Result<String, Error> {
    if region.parse::<Region>().is_err() {
        let message = format!(
            "region {region:?} is not the name of one: expected lower-case letters, digits and '-', such as eu-west-1"
        );
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let partition = PARTITIONS
        .into_iter()
        .find(|(prefix, ..)| region.starts_with(prefix));
    let (prefix, usual, dual_stack) = partition.unwrap_or(("", "amazonaws.com", Some("api.aws")));
    let suffix = match (variant.dual_stack, dual_stack) {
        (false, _) => usual,
        (true, Some(suffix)) => suffix,
        (true, None) => {
            let message = format!(
                "region {region} has no dual-stack endpoint: unset AWS_USE_DUALSTACK_ENDPOINT"
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
    };
    // In GovCloud the ordinary endpoint is the one of FIPS.
    let service = match (variant.fips, prefix, variant.dual_stack) {
        (false, ..) | (true, "us-gov-", false) => "kinesis",
        (true, ..) => "kinesis-fips",
    };
    Ok(format!("https://{service}.{region}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Region, FIPS, dual stack, host.
    const HOSTS: [(&str, bool, bool, &str); 13] = [
        ("eu-west-1", false, false, "kinesis.eu-west-1.amazonaws.com"),
        (
            "us-east-1",
            true,
            false,
            "kinesis-fips.us-east-1.amazonaws.com",
        ),
        ("us-east-1", false, true, "kinesis.us-east-1.api.aws"),
        ("us-east-1", true, true, "kinesis-fips.us-east-1.api.aws"),
        (
            "cn-north-1",
            false,
            false,
            "kinesis.cn-north-1.amazonaws.com.cn",
        ),
        (
            "cn-north-1",
            false,
            true,
            "kinesis.cn-north-1.api.amazonwebservices.com.cn",
        ),
        (
            "us-gov-west-1",
            false,
            false,
            "kinesis.us-gov-west-1.amazonaws.com",
        ),
        (
            "us-gov-west-1",
            true,
            false,
            "kinesis.us-gov-west-1.amazonaws.com",
        ),
        (
            "us-iso-east-1",
            false,
            false,
            "kinesis.us-iso-east-1.c2s.ic.gov",
        ),
        (
            "us-isob-east-1",
            false,
            false,
            "kinesis.us-isob-east-1.sc2s.sgov.gov",
        ),
        (
            "us-isof-south-1",
            true,
            false,
            "kinesis-fips.us-isof-south-1.csp.hci.ic.gov",
        ),
        (
            "eu-isoe-west-1",
            false,
            false,
            "kinesis.eu-isoe-west-1.cloud.adc-e.uk",
        ),
        (
            "eusc-de-east-1",
            false,
            false,
            "kinesis.eusc-de-east-1.amazonaws.eu",
        ),
    ];

    #[test]
    fn every_partition_has_its_names() {
        let variant = |fips, dual_stack| Variant { fips, dual_stack };
        for (region, fips, dual_stack, host) in HOSTS {
            let url = aws_endpoint(region, variant(fips, dual_stack)).unwrap();
            assert_eq!(url, format!("https://{host}"));
        }
        for (region, dual_stack) in [
            ("us-iso-east-1", true),
            ("evil.example/", false),
            ("", false),
        ] {
            let error = aws_endpoint(region, variant(false, dual_stack)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{region}");
        }
    }
}
