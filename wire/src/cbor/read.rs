//! Reading: a serde deserializer over the bytes of a body.

use minicbor::Decoder;
use minicbor::data::Type;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::{CborError, MAX_DEPTH, TIMESTAMP_TAG};
use crate::shapes::Timestamp;

/// The byte that ends what has an indefinite length.
const BREAK: u8 = 0xff;

/// Reads values one after the other.
pub(crate) struct Reader<'de> {
    input: Decoder<'de>,
    depth: usize,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Reader<'de> {
        Reader {
            input: Decoder::new(bytes),
            depth: 0,
        }
    }

    /// # Errors
    /// If anything is left to read.
    pub(super) fn finish(&self) -> Result<(), CborError> {
        match self.input.input().len() - self.input.position() {
            0 => Ok(()),
            left => Err(CborError(format!("{left} bytes follow the value"))),
        }
    }

    pub(super) fn is_at_map(&self) -> bool {
        matches!(self.input.datatype(), Ok(Type::Map | Type::MapIndef))
    }

    fn kind(&self) -> Result<Type, CborError> {
        self.input.datatype().map_err(CborError::new)
    }

    /// Refuses what is not one of these types.
    fn expect(&self, what: &str, kinds: [Type; 2]) -> Result<(), CborError> {
        let kind = self.kind()?;
        if kinds.contains(&kind) {
            return Ok(());
        }
        Err(self.misplaced(kind, what))
    }

    fn misplaced(&self, kind: Type, what: &str) -> CborError {
        let at = self.input.position();
        CborError(format!("{kind} at byte {at} where {what} belongs"))
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CborError>,
    ) -> Result<T, CborError> {
        if self.depth == MAX_DEPTH {
            return Err(CborError(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn bytes<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CborError> {
        if self.kind()? == Type::Bytes {
            return visitor.visit_borrowed_bytes(self.input.bytes().map_err(CborError::new)?);
        }
        let mut whole = Vec::new();
        for piece in self.input.bytes_iter().map_err(CborError::new)? {
            whole.extend_from_slice(piece.map_err(CborError::new)?);
        }
        visitor.visit_byte_buf(whole)
    }

    fn text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CborError> {
        if self.kind()? == Type::String {
            return visitor.visit_borrowed_str(self.input.str().map_err(CborError::new)?);
        }
        let mut whole = String::new();
        for piece in self.input.str_iter().map_err(CborError::new)? {
            whole.push_str(piece.map_err(CborError::new)?);
        }
        visitor.visit_string(whole)
    }

    fn items<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CborError> {
        let left = self.input.array().map_err(CborError::new)?;
        self.nested(|reader| {
            let mut items = Items { reader, left };
            let value = visitor.visit_seq(&mut items)?;
            items.end()?;
            Ok(value)
        })
    }

    fn entries<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CborError> {
        let left = self.input.map().map_err(CborError::new)?;
        self.nested(|reader| {
            let mut entries = Items { reader, left };
            let value = visitor.visit_map(&mut entries)?;
            entries.end()?;
            Ok(value)
        })
    }

    fn tag(&mut self) -> Result<u64, CborError> {
        self.input.tag().map(Into::into).map_err(CborError::new)
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = CborError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        let input = &mut self.input;
        match input.datatype().map_err(CborError::new)? {
            Type::Bool => visitor.visit_bool(input.bool().map_err(CborError::new)?),
            Type::Null => {
                input.null().map_err(CborError::new)?;
                visitor.visit_unit()
            }
            Type::Undefined => {
                input.undefined().map_err(CborError::new)?;
                visitor.visit_unit()
            }
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
                visitor.visit_u64(input.u64().map_err(CborError::new)?)
            }
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                let value = input.int().map_err(CborError::new)?;
                // Only a negative number has no room here; the least stands for it.
                visitor.visit_i64(i64::try_from(i128::from(value)).unwrap_or(i64::MIN))
            }
            Type::F16 | Type::F32 | Type::F64 => {
                visitor.visit_f64(input.f64().map_err(CborError::new)?)
            }
            Type::Bytes | Type::BytesIndef => self.bytes(visitor),
            Type::String | Type::StringIndef => self.text(visitor),
            Type::Array | Type::ArrayIndef => self.items(visitor),
            Type::Map | Type::MapIndef => self.entries(visitor),
            Type::Tag => match self.tag()? {
                TIMESTAMP_TAG => self.nested(|reader| visitor.visit_newtype_struct(reader)),
                tag => Err(CborError(format!(
                    "tag {tag} stands for no type of a member"
                ))),
            },
            kind @ (Type::Simple | Type::Break | Type::Unknown(_)) => {
                Err(self.misplaced(kind, "a value"))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        match self.kind()? {
            Type::Null => self.input.null().map_err(CborError::new)?,
            Type::Undefined => self.input.undefined().map_err(CborError::new)?,
            _ => return visitor.visit_some(self),
        }
        visitor.visit_none()
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        self.expect("a byte string", [Type::Bytes, Type::BytesIndef])?;
        self.bytes(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CborError> {
        if name == Timestamp::NEWTYPE && self.kind()? == Type::Tag {
            let tag = self.tag()?;
            if tag != TIMESTAMP_TAG {
                return Err(CborError(format!("tag {tag} where a timestamp belongs")));
            }
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CborError> {
        self.expect("a structure", [Type::Map, Type::MapIndef])?;
        self.entries(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CborError> {
        let text: String = de::Deserialize::deserialize(self)?;
        visitor.visit_enum(text.into_deserializer())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        match self.kind()? {
            // What is not looked at may be of types this version does not know.
            Type::Tag => {
                self.tag()?;
                self.nested(|reader| reader.deserialize_ignored_any(visitor))
            }
            Type::Simple => {
                self.input.simple().map_err(CborError::new)?;
                visitor.visit_unit()
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// What is left of a list or a map: so many, or all until the break.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: Option<u64>,
}

impl Items<'_, '_> {
    fn more(&mut self) -> Result<bool, CborError> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => {
                let input = &mut self.reader.input;
                let at = input.position();
                match input.input().get(at) {
                    None => Err(CborError::new("the end is missing")),
                    Some(&BREAK) => {
                        input.set_position(at + 1);
                        self.left = Some(0);
                        Ok(false)
                    }
                    Some(_) => Ok(true),
                }
            }
        }
    }

    /// What a visitor left unread would be taken for what follows.
    fn end(mut self) -> Result<(), CborError> {
        if self.more()? {
            return Err(CborError::new("a list or map is longer than its type"));
        }
        Ok(())
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = CborError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CborError> {
        if !self.more()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = CborError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, CborError> {
        if !self.more()? {
            return Ok(None);
        }
        let kinds = [Type::String, Type::StringIndef];
        self.reader.expect("a name", kinds)?;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CborError> {
        seed.deserialize(&mut *self.reader)
    }
}
