//! How members are read from JSON: numbers and booleans as leniently as AWS does, lists and maps with
//! a bound, structures from objects only.

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Option<i64>, E> {
        Ok(Some(value.clamp(i32::MIN.into(), i32::MAX.into())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<i64>, E> {
        self.visit_i64(i64::try_from(value).unwrap_or(i64::MAX))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is what is wanted"
    )]
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Option<i64>, E> {
        self.visit_i64(value.floor() as i64)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<i64>, E> {
        Ok(None)
    }
}

/// Reads a number as AWS does: a fraction is cut, and what is beyond 32 bits becomes the nearest that is
/// not. The model has no wider numbers in requests.
pub(crate) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(IntegerVisitor)
}

struct BooleanVisitor;

impl Visitor<'_> for BooleanVisitor {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Option<bool>, E> {
        Ok(Some(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<bool>, E> {
        boolean_text(text)
            .map(Some)
            .ok_or_else(|| E::custom("not a boolean"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<bool>, E> {
        Ok(None)
    }
}

/// The texts AWS takes for a boolean.
pub(crate) fn boolean_text(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match (is(["true", "1", "yes"]), is(["false", "0", "no"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// Reads a boolean, or a text that AWS takes for one.
pub(crate) fn boolean<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    d.deserialize_any(BooleanVisitor)
}

struct ListVisitor<T, const KEEP: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const KEEP: usize> Visitor<'de> for ListVisitor<T, KEEP> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < KEEP {
            match items.next_element()? {
                Some(item) => kept.push(item),
                None => return Ok(Some(kept)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(kept))
    }
}

/// Reads a list but keeps only its first `KEEP` items: one more than the constraint allows is enough
/// to refuse it, and a body full of tiny items must not become a hundred times its size in memory.
pub(crate) fn list<'de, T, D, const KEEP: usize>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(ListVisitor::<T, KEEP>(PhantomData))
}

/// A structure that is read from a JSON object only; a derived one also takes a list of its members,
/// which AWS does not.
struct Structure<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Structure<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StructureVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for StructureVisitor<T> {
            type Value = Structure<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a structure")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Structure<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(members)).map(Structure)
            }
        }
        deserializer.deserialize_map(StructureVisitor(PhantomData))
    }
}

/// Reads a structure within a request.
pub(crate) fn structure<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<Structure<T>>::deserialize(deserializer).map(|given| given.map(|given| given.0))
}

/// Reads a list of structures, as [`list`] does.
pub(crate) fn structures<'de, T, D, const KEEP: usize>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let kept = list::<Structure<T>, D, KEEP>(deserializer)?;
    Ok(kept.map(|kept| kept.into_iter().map(|item| item.0).collect()))
}

struct MapVisitor<const KEEP: usize>;

impl<'de, const KEEP: usize> Visitor<'de> for MapVisitor<KEEP> {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while kept.len() < KEEP {
            match entries.next_entry()? {
                Some((key, value)) => drop(kept.insert(key, value)),
                None => return Ok(Some(kept)),
            }
        }
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(kept))
    }
}

/// Reads a map of texts but keeps only `KEEP` entries, as [`list`] does.
pub(crate) fn map<'de, D, const KEEP: usize>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(MapVisitor::<KEEP>)
}
