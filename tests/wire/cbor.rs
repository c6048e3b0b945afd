//! JSON values of the suite to CBOR and back, as the model says what a member is: byte strings for blobs, and
//! for times tag 1 around a whole number of milliseconds. The encoder is not the server's.

use crate::model::Model;
use ciborium::Value as Cbor;
use serde_json::{Map, Number, Value, json};
use support::client::{decode_base64, encode_base64};

/// The tag of a time.
const TIME: u64 = 1;

/// A value of a shape in CBOR. What does not fit its shape is sent as what it is.
pub(crate) fn encode(model: &Model, shape: &Value, value: &Value) -> Cbor {
    match (shape["type"].as_str().unwrap_or_default(), value) {
        ("structure", Value::Object(given)) => {
            let members = model.members(shape);
            let shape_of = |name: &str| members.iter().find(|(known, _, _)| *known == name);
            let pairs = given.iter().map(|(name, value)| {
                let shape = shape_of(name).map_or(&Value::Null, |(_, shape, _)| *shape);
                (Cbor::Text(name.clone()), encode(model, shape, value))
            });
            Cbor::Map(pairs.collect())
        }
        ("list", Value::Array(items)) => {
            let shape = model.item(shape);
            let items = items.iter().map(|item| encode(model, shape, item));
            Cbor::Array(items.collect())
        }
        ("blob", Value::String(text)) => Cbor::Bytes(decode_base64(text)),
        ("timestamp", Value::Number(seconds)) => {
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds of this age")]
            let millis = (seconds.as_f64().unwrap_or_default() * 1_000.0).round() as i64;
            Cbor::Tag(TIME, Box::new(Cbor::Integer(millis.into())))
        }
        (_, value) => Cbor::serialized(value).expect("JSON fits CBOR"),
    }
}

/// A value of a shape out of CBOR, in the form JSON has it; or where it is not what its shape says.
pub(crate) fn decode(model: &Model, shape: &Value, value: &Cbor) -> Result<Value, String> {
    let kind = shape["type"].as_str().unwrap_or("unknown");
    match (kind, value) {
        ("structure", Cbor::Map(pairs)) => {
            let mut found = Map::new();
            let members = model.members(shape);
            for (name, value) in pairs {
                let name = name.as_text().ok_or("a name that is no text")?;
                let shape = members.iter().find(|(known, _, _)| *known == name);
                let shape = shape.map_or(&Value::Null, |(_, shape, _)| *shape);
                let value = decode(model, shape, value);
                let value = value.map_err(|why| format!("{name}: {why}"))?;
                if found.insert(name.to_owned(), value).is_some() {
                    return Err(format!("{name} is there twice"));
                }
            }
            Ok(Value::Object(found))
        }
        ("list", Cbor::Array(items)) => {
            let shape = model.item(shape);
            let items = items.iter().map(|item| decode(model, shape, item));
            items.collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        ("string", Cbor::Text(text)) => Ok(json!(text)),
        ("blob", Cbor::Bytes(bytes)) => Ok(json!(encode_base64(bytes))),
        ("boolean", Cbor::Bool(value)) => Ok(json!(value)),
        ("integer" | "long", Cbor::Integer(number)) => whole(*number).map(|n| json!(n)),
        ("timestamp", Cbor::Tag(TIME, inner)) => match **inner {
            Cbor::Integer(millis) => seconds(whole(millis)?),
            _ => Err(format!("a time of {inner:?}, not of whole milliseconds")),
        },
        // Kept, for the walk through the outputs to name it.
        ("unknown", value) => value.deserialized().map_err(|error| error.to_string()),
        (kind, value) => Err(format!("{value:?} where the model has a {kind}")),
    }
}

fn whole(number: ciborium::value::Integer) -> Result<i64, String> {
    i64::try_from(number).map_err(|error| error.to_string())
}

/// Seconds with a fraction, as JSON has a time.
fn seconds(millis: i64) -> Result<Value, String> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this age")]
    let seconds = Number::from_f64(millis as f64 / 1_000.0);
    seconds.map(Value::Number).ok_or("no such time".to_owned())
}
