//! Checks a decoded request against its table and says what is wrong in AWS's grammar.
//!
//! Source: kinesalite's tests, whose texts were compared with AWS.

use std::collections::BTreeMap;
use std::fmt;

use super::constraint::{Constraint, Kind, Member};
use super::value::{Blob, Text, Timestamp};
use crate::limits::ECHO_MAX_CHARS;

/// Violations a message lists at most.
const MAX_VIOLATIONS: usize = 10;

/// A member's value, as the checks and the messages need to see it.
#[derive(Clone, Copy)]
pub enum View<'v> {
    /// Not given.
    Null,
    /// A text, or an enum's value.
    Text(&'v str),
    /// A number.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
    /// A time.
    Timestamp(Timestamp),
    /// A blob of so many bytes.
    Blob(usize),
    /// A list.
    List(&'v dyn List),
    /// A map of texts.
    Map(&'v BTreeMap<String, String>),
    /// A structure.
    Structure(&'v dyn Shape),
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(&super::constraint::INTEGER))
    }
}

/// Something a member can hold.
pub trait Viewed {
    /// It, as the checks see it.
    fn view(&self) -> View<'_>;
}

/// A list of things a member can hold.
pub trait List {
    /// Calls `each` with every item in order.
    fn each(&self, each: &mut dyn FnMut(View<'_>));
    /// Number of items.
    fn count(&self) -> usize;
}

/// A structure whose members are declared in a table.
pub trait Shape {
    /// Calls `each` with every member and its value, in the order AWS checks them.
    fn each_member(&self, each: &mut dyn FnMut(&Member, View<'_>));
}

/// The table of a [`Shape`].
pub trait Declared: Shape {
    /// Its members, in the order AWS checks them.
    const MEMBERS: &'static [Member];
}

/// Checks `shape` against its table; the message is the whole text of a `ValidationException`.
pub(crate) fn validate(shape: &dyn Shape) -> Result<(), String> {
    let mut found = Violations::default();
    found.structure(Path::Root, shape);
    let count = found.0.len();
    if count == 0 {
        return Ok(());
    }
    let plural = if count == 1 { "" } else { "s" };
    Err(format!(
        "{count} validation error{plural} detected: {}",
        found.0.join("; ")
    ))
}

/// Where a member stands. It becomes a text in a message only: most requests have nothing wrong.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Member(&'p Path<'p>, &'static str),
    /// Counted from 1.
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Member(Path::Root, name) => f.write_str(&lower_first(name)),
            Path::Member(parent, name) => write!(f, "{parent}.{}", lower_first(name)),
            Path::Item(list, index) => write!(f, "{list}.{index}.member"),
        }
    }
}

#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    fn structure(&mut self, path: Path<'_>, shape: &dyn Shape) {
        shape.each_member(&mut |member, value| {
            let path = Path::Member(&path, member.name);
            match (value, member.required) {
                (View::Null, true) => {
                    self.add(value, member.constraint, path, "Member must not be null");
                }
                (View::Null, false) => {}
                _ => self.value(path, value, member.constraint),
            }
        });
    }

    fn value(&mut self, path: Path<'_>, value: View<'_>, constraint: &Constraint) {
        for text in violations_of(value, constraint) {
            self.add(value, constraint, path, &text);
        }
        match (value, constraint.kind) {
            (View::Structure(shape), _) => self.structure(path, shape),
            (View::List(items), Kind::List(item)) => {
                self.items(path, value, items, (constraint, item));
            }
            (View::Map(entries), Kind::Map(key, item)) => {
                let bad_key = entries
                    .keys()
                    .any(|text| !len_fits(text.chars().count(), key));
                let bad_value = entries
                    .values()
                    .any(|text| !len_fits(text.chars().count(), item));
                if bad_key {
                    self.add(
                        value,
                        constraint,
                        path,
                        &format!("Map keys must satisfy {}", lens(key)),
                    );
                }
                if bad_value {
                    self.add(
                        value,
                        constraint,
                        path,
                        &format!("Map value must satisfy {}", lens(item)),
                    );
                }
            }
            _ => {}
        }
    }

    /// Structures are checked one by one; texts are answered for together, at the list's own name.
    fn items(
        &mut self,
        path: Path<'_>,
        value: View<'_>,
        items: &dyn List,
        of: (&Constraint, &Constraint),
    ) {
        let (constraint, item_constraint) = of;
        let (mut index, mut fits) = (0, true);
        items.each(&mut |item| {
            index += 1;
            match item {
                View::Structure(shape) if self.0.len() < MAX_VIOLATIONS => {
                    self.structure(Path::Item(&path, index), shape);
                }
                View::Text(_) => fits &= violations_of(item, item_constraint).is_empty(),
                _ => {}
            }
        });
        if !fits {
            let text = format!("Member must satisfy {}", item_rules(item_constraint));
            self.add(value, constraint, path, &text);
        }
    }

    fn add(&mut self, value: View<'_>, constraint: &Constraint, path: Path<'_>, what: &str) {
        if self.0.len() < MAX_VIOLATIONS {
            let shown = match value {
                View::Null => "null".to_owned(),
                _ => format!("'{}'", value.shown(constraint)),
            };
            self.0.push(format!(
                "Value {shown} at '{path}' failed to satisfy constraint: {what}"
            ));
        }
    }
}

/// What is wrong with a value by itself, its items aside.
fn violations_of(value: View<'_>, constraint: &Constraint) -> Vec<String> {
    let mut found = Vec::new();
    if let View::Text(text) = value {
        if let Some(pattern) = constraint
            .pattern
            .filter(|pattern| !(pattern.matches)(text))
        {
            found.push(format!(
                "Member must satisfy regular expression pattern: {}",
                pattern.text
            ));
        }
        if !constraint.allowed.is_empty() && !constraint.allowed.contains(&text) {
            let allowed = constraint.allowed.join(", ");
            found.push(format!("Member must satisfy enum value set: [{allowed}]"));
        }
    }
    if let View::Integer(number) = value {
        if let Some(min) = constraint.min.filter(|min| number < *min) {
            found.push(format!(
                "Member must have value greater than or equal to {min}"
            ));
        }
        if let Some(max) = constraint.max.filter(|max| number > *max) {
            found.push(format!(
                "Member must have value less than or equal to {max}"
            ));
        }
    }
    if let Some(len) = value.len() {
        if let Some(min) = constraint.min_len.filter(|min| len < *min) {
            found.push(format!(
                "Member must have length greater than or equal to {min}"
            ));
        }
        if let Some(max) = constraint.max_len.filter(|max| len > *max) {
            found.push(format!(
                "Member must have length less than or equal to {max}"
            ));
        }
    }
    found
}

fn len_fits(len: usize, constraint: &Constraint) -> bool {
    constraint.min_len.is_none_or(|min| min <= len)
        && constraint.max_len.is_none_or(|max| len <= max)
}

/// What a text in a list must be, as AWS says it of the list.
fn item_rules(constraint: &Constraint) -> String {
    if constraint.allowed.is_empty() {
        return lens(constraint);
    }
    let allowed = constraint.allowed.join(", ");
    format!("constraint: [Member must satisfy enum value set: [{allowed}]]")
}

fn lens(constraint: &Constraint) -> String {
    format!(
        "constraint: [Member must have length less than or equal to {}, \
         Member must have length greater than or equal to {}]",
        constraint.max_len.unwrap_or(usize::MAX),
        constraint.min_len.unwrap_or_default(),
    )
}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(letters)
        .collect()
}

fn cut(text: &str) -> String {
    text.chars().take(ECHO_MAX_CHARS).collect()
}

impl View<'_> {
    fn len(&self) -> Option<usize> {
        match self {
            View::Text(text) => Some(text.chars().count()),
            View::Blob(len) => Some(*len),
            View::List(items) => Some(items.count()),
            View::Map(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// The value as Java would print it.
    fn shown(&self, constraint: &Constraint) -> String {
        match self {
            View::Null => "null".to_owned(),
            View::Text(text) => cut(text),
            View::Integer(number) => number.to_string(),
            View::Boolean(value) => value.to_string(),
            View::Timestamp(time) => time.to_string(),
            View::Blob(len) => format!("java.nio.HeapByteBuffer[pos=0 lim={len} cap={len}]"),
            View::Structure(_) => constraint.shown_as.unwrap_or("structure").to_owned(),
            View::List(items) => {
                let mut all = Vec::new();
                let mut left = ECHO_MAX_CHARS;
                items.each(&mut |item| {
                    if left > 0 {
                        let text = item.shown(constraint);
                        left = left.saturating_sub(text.len() + 2);
                        all.push(text);
                    }
                });
                format!("[{}]", cut(&all.join(", ")))
            }
            View::Map(entries) => {
                let all = entries.iter().take(ECHO_MAX_CHARS / 4);
                let all: Vec<_> = all
                    .map(|(key, value)| format!("{}={}", cut(key), cut(value)))
                    .collect();
                format!("{{{}}}", cut(&all.join(", ")))
            }
        }
    }
}

impl<T: Viewed> Viewed for Option<T> {
    fn view(&self) -> View<'_> {
        self.as_ref().map_or(View::Null, Viewed::view)
    }
}

impl<T: Viewed> Viewed for Vec<T> {
    fn view(&self) -> View<'_> {
        View::List(self)
    }
}

impl<T: Viewed> List for Vec<T> {
    fn each(&self, each: &mut dyn FnMut(View<'_>)) {
        for item in self {
            each(item.view());
        }
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Viewed for BTreeMap<String, String> {
    fn view(&self) -> View<'_> {
        View::Map(self)
    }
}

impl Viewed for String {
    fn view(&self) -> View<'_> {
        View::Text(self)
    }
}

impl Viewed for Text<'_> {
    fn view(&self) -> View<'_> {
        View::Text(self.as_str())
    }
}

impl Viewed for Blob<'_> {
    fn view(&self) -> View<'_> {
        View::Blob(self.decoded_len())
    }
}

impl Viewed for i64 {
    fn view(&self) -> View<'_> {
        View::Integer(*self)
    }
}

impl Viewed for bool {
    fn view(&self) -> View<'_> {
        View::Boolean(*self)
    }
}

impl Viewed for Timestamp {
    fn view(&self) -> View<'_> {
        View::Timestamp(*self)
    }
}
