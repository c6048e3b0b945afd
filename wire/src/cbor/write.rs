//! Writing: a serde serializer into a buffer.

use minicbor::Encoder;
use minicbor::data::Tag;
use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer,
};
use std::fmt::{self, Write as _};

use super::{CborError, TIMESTAMP_TAG};
use crate::shapes::Timestamp;

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CborError> {
    let mut writer = Writer {
        out: Encoder::new(Vec::new()),
        scratch: String::new(),
    };
    value.serialize(&mut writer)?;
    Ok(writer.out.into_writer())
}

struct Writer {
    out: Encoder<Vec<u8>>,
    /// Where what is only displayed becomes text: its length comes before it.
    scratch: String,
}

/// A list, map or structure that has begun and waits for its break.
struct Open<'w>(&'w mut Writer);

/// Writes one item with the encoder.
macro_rules! write {
    ($writer:expr, $method:ident $(, $value:expr)?) => {{
        $writer.out.$method($($value)?).map_err(CborError::new)?;
        Ok(())
    }};
}

fn unsupported<T>(what: &str) -> Result<T, CborError> {
    Err(CborError(format!("{what} has no CBOR form here")))
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = ();
    type Error = CborError;
    type SerializeSeq = Open<'w>;
    type SerializeTuple = Open<'w>;
    type SerializeTupleStruct = Open<'w>;
    type SerializeTupleVariant = serde::ser::Impossible<(), CborError>;
    type SerializeMap = Open<'w>;
    type SerializeStruct = Open<'w>;
    type SerializeStructVariant = serde::ser::Impossible<(), CborError>;

    fn serialize_bool(self, value: bool) -> Result<(), CborError> {
        write!(self, bool, value)
    }

    fn serialize_i8(self, value: i8) -> Result<(), CborError> {
        write!(self, i8, value)
    }

    fn serialize_i16(self, value: i16) -> Result<(), CborError> {
        write!(self, i16, value)
    }

    fn serialize_i32(self, value: i32) -> Result<(), CborError> {
        write!(self, i32, value)
    }

    fn serialize_i64(self, value: i64) -> Result<(), CborError> {
        write!(self, i64, value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), CborError> {
        write!(self, u8, value)
    }

    fn serialize_u16(self, value: u16) -> Result<(), CborError> {
        write!(self, u16, value)
    }

    fn serialize_u32(self, value: u32) -> Result<(), CborError> {
        write!(self, u32, value)
    }

    fn serialize_u64(self, value: u64) -> Result<(), CborError> {
        write!(self, u64, value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), CborError> {
        write!(self, f32, value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), CborError> {
        write!(self, f64, value)
    }

    fn serialize_char(self, value: char) -> Result<(), CborError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CborError> {
        write!(self, str, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CborError> {
        write!(self, bytes, value)
    }

    fn serialize_none(self) -> Result<(), CborError> {
        write!(self, null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CborError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CborError> {
        write!(self, null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), CborError> {
        write!(self, null)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), CborError> {
        write!(self, str, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CborError> {
        if name == Timestamp::NEWTYPE {
            let tag = Tag::new(TIMESTAMP_TAG);
            self.out.tag(tag).map_err(CborError::new)?;
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), CborError> {
        unsupported(name)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Open<'w>, CborError> {
        self.out.begin_array().map_err(CborError::new)?;
        Ok(Open(self))
    }

    fn serialize_tuple(self, len: usize) -> Result<Open<'w>, CborError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Open<'w>, CborError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, CborError> {
        unsupported(name)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Open<'w>, CborError> {
        self.out.begin_map().map_err(CborError::new)?;
        Ok(Open(self))
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<Open<'w>, CborError> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, CborError> {
        unsupported(name)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), CborError> {
        self.scratch.clear();
        std::write!(self.scratch, "{value}").map_err(CborError::new)?;
        write!(self, str, &self.scratch)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Open<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
        value.serialize(&mut *self.0)
    }

    fn close(self) -> Result<(), CborError> {
        write!(self.0, end)
    }
}

macro_rules! lists {
    ($($list:ident::$item:ident,)+) => {
        $(impl $list for Open<'_> {
            type Ok = ();
            type Error = CborError;

            fn $item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CborError> {
                self.close()
            }
        })+
    };
}

lists! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
}

impl SerializeMap for Open<'_> {
    type Ok = ();
    type Error = CborError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CborError> {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CborError> {
        self.item(value)
    }

    fn end(self) -> Result<(), CborError> {
        self.close()
    }
}

impl SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = CborError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CborError> {
        self.item(name)?;
        self.item(value)
    }

    fn end(self) -> Result<(), CborError> {
        self.close()
    }
}
