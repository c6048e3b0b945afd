//! Which name was meant by one that is not there: pure.

/// Names that are mentioned at most.
const NAMES_MAX: usize = 5;
/// Names longer than this are not compared letter by letter; a stream's is no longer.
const COMPARED_MAX_CHARS: usize = 128;

/// What to say of the names that there are.
pub(super) fn suggestion(wanted: &str, names: &[String]) -> String {
    if names.is_empty() {
        return "there are no streams there".to_owned();
    }
    let close = names
        .iter()
        .map(|name| (distance(&name.to_lowercase(), &wanted.to_lowercase()), name))
        .min()
        .filter(|(distance, _)| *distance <= 1 + wanted.chars().count() / 4);
    if let Some((_, name)) = close {
        return format!("did you mean {name:?}?");
    }
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = if names.len() > NAMES_MAX { ", ..." } else { "" };
    format!("the streams there: {}{more}", shown.join(", "))
}

/// Letters to be inserted, deleted or replaced to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(COMPARED_MAX_CHARS).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().take(COMPARED_MAX_CHARS).enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (cell, against) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(letter != *against);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_letters_that_differ() {
        let table = [
            ("", "", 0),
            ("orders", "orders", 0),
            ("ordres", "orders", 2),
            ("order", "orders", 1),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
        ];
        for (one, other, expected) in table {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn names_what_was_meant_or_what_there_is() {
        let names: Vec<String> = ["clicks", "orders", "a", "b", "c", "d"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(suggestion("Order", &names), r#"did you mean "orders"?"#);
        let others = suggestion("payments", &names);
        assert_eq!(others, "the streams there: clicks, orders, a, b, c, ...");
        assert_eq!(suggestion("x", &[]), "there are no streams there");
    }
}
