//! Finds where a body's types differ from the table, and says so in AWS's words.
//!
//! This runs only after the typed decoding has failed. It walks the text once, keeps nothing of it,
//! and stops at the first difference.

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

use super::constraint::{Constraint, Kind, Member};
use super::lenient::boolean_text;
use crate::b64;
use crate::limits::ECHO_MAX_CHARS;

/// AWS's message for the first member of `body` whose type is not the declared one; `None` where the
/// body is not JSON, not an object, or has nothing AWS has a message for.
pub(crate) fn explain(body: &[u8], members: &'static [Member]) -> Option<String> {
    walk(&mut serde_json::Deserializer::from_slice(body), members)
}

/// The same for a CBOR body.
pub(crate) fn explain_cbor(body: &[u8], members: &'static [Member]) -> Option<String> {
    if !crate::cbor::is_map(body) {
        return None;
    }
    walk(&mut crate::cbor::Reader::new(body), members)
}

fn walk<'de, D: Deserializer<'de>>(body: D, members: &'static [Member]) -> Option<String> {
    let found = RefCell::new(None);
    let root = Seed {
        constraint: &Constraint::structure(members),
        found: &found,
        blobs_are_text: body.is_human_readable(),
    };
    // The result only says whether the walk was cut short; what it found is in `found`.
    let _ = root.deserialize(body);
    found.into_inner()
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    constraint: &'s Constraint,
    found: &'s RefCell<Option<String>>,
    blobs_are_text: bool,
}

const LIST_MISPLACED: &str = "Start of list found where not expected";
const STRUCTURE_MISPLACED: &str = "Start of structure or map found where not expected.";
const JAVA_NUMBER: &str = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber";
const JAVA_BOOLEAN: &str = "class java.lang.Boolean";
const JAVA_STRING: &str = "class java.lang.String";
const JAVA_BYTES: &str = "class java.nio.HeapByteBuffer";
const JAVA_DATE: &str = "class java.util.Date";

impl<'s> Seed<'s> {
    fn refuse<T, E: de::Error>(self, message: impl Into<String>) -> Result<T, E> {
        *self.found.borrow_mut() = Some(message.into());
        Err(E::custom("a type differs"))
    }

    fn child(self, constraint: &'s Constraint) -> Self {
        Seed { constraint, ..self }
    }

    /// A scalar of the Java class `class` where a value of another kind belongs.
    fn scalar<E: de::Error>(self, class: &str) -> Result<(), E> {
        match self.constraint.kind {
            Kind::Text => self.refuse(format!("{class} can not be converted to an String")),
            Kind::Integer => self.refuse(format!("{class} can not be converted to an Integer")),
            Kind::Boolean => self.refuse(format!("{class} can not be converted to an Boolean")),
            Kind::Blob => self.refuse(format!("{class} can not be converted to a Blob")),
            Kind::Timestamp => self.refuse(format!(
                "{class} can not be converted to milliseconds since epoch"
            )),
            Kind::List(_) => self.refuse("Expected list or null"),
            Kind::Map(..) => self.refuse("Expected map or null"),
            Kind::Structure(_) => self.refuse("Expected null"),
        }
    }

    fn number<E: de::Error>(self) -> Result<(), E> {
        match self.constraint.kind {
            Kind::Integer | Kind::Timestamp => Ok(()),
            _ => self.scalar(JAVA_NUMBER),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the declared type")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        match self.constraint.kind {
            Kind::Boolean => Ok(()),
            _ => self.scalar(JAVA_BOOLEAN),
        }
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.number()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.number()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.number()
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match self.constraint.kind {
            Kind::Text => Ok(()),
            Kind::Boolean if boolean_text(text).is_some() => Ok(()),
            Kind::Boolean => {
                let echo: String = text.chars().take(ECHO_MAX_CHARS).collect();
                let shown = echo.to_uppercase();
                self.refuse(format!("'{shown}' can not be converted to an Boolean"))
            }
            Kind::Blob if self.blobs_are_text => match b64::check(text) {
                Ok(()) => Ok(()),
                Err(error) => self.refuse(error.explain(text)),
            },
            _ => self.scalar(JAVA_STRING),
        }
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<(), E> {
        match self.constraint.kind {
            Kind::Blob => Ok(()),
            _ => self.scalar(JAVA_BYTES),
        }
    }

    /// CBOR's timestamp, by its tag.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.constraint.kind {
            Kind::Timestamp => value.deserialize_any(self),
            _ => self.scalar(JAVA_DATE),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Kind::List(item) = self.constraint.kind else {
            return self.refuse(LIST_MISPLACED);
        };
        while items.next_element_seed(self.child(item))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        match self.constraint.kind {
            Kind::Structure(members) => {
                while let Some(name) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
                    match members.iter().find(|member| member.name == name) {
                        Some(member) => entries.next_value_seed(self.child(member.constraint))?,
                        None => drop(entries.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(())
            }
            Kind::Map(_, item) => {
                while entries.next_key::<IgnoredAny>()?.is_some() {
                    entries.next_value_seed(self.child(item))?;
                }
                Ok(())
            }
            _ => self.refuse(STRUCTURE_MISPLACED),
        }
    }
}
