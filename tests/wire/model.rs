//! The service model as botocore has it, and values that fit it or do not.

use crate::python;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::OnceCell;

const PRINT: &str = "import json, botocore.loaders; \
    print(json.dumps(botocore.loaders.Loader().load_service_model('kinesis', 'service-2')))";

/// The model.
#[derive(Debug)]
pub(crate) struct Model(Value);

/// A value that a member must not have.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// What is wrong with it.
    pub(crate) why: String,
    /// Where it is below the member, as `ValidationException` names it; empty for the member itself.
    pub(crate) path: String,
    /// The value.
    pub(crate) value: Value,
}

impl Model {
    /// The model, loaded once.
    pub(crate) async fn get() -> &'static Model {
        static MODEL: OnceCell<Model> = OnceCell::const_new();
        MODEL.get_or_init(Model::load).await
    }

    /// Loads it with the Python of the clients' environment.
    async fn load() -> Model {
        let python = python::program("python").await;
        let ended = python::run(&python, &["-c", PRINT], &[], Duration::from_mins(1)).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        Model(serde_json::from_str(&ended.stdout).expect("botocore prints JSON"))
    }

    /// Every operation's name.
    pub(crate) fn operations(&self) -> Vec<String> {
        let operations = self.0["operations"].as_object().expect("operations");
        operations.keys().cloned().collect()
    }

    /// The shape of an operation's input.
    pub(crate) fn input(&self, operation: &str) -> &Value {
        match self.0["operations"][operation]["input"]["shape"].as_str() {
            Some(name) => self.shape(name),
            None => panic!("{operation} has no input"),
        }
    }

    /// The shape of an operation's output, if it has one.
    pub(crate) fn output(&self, operation: &str) -> Option<&Value> {
        let name = self.0["operations"][operation]["output"]["shape"].as_str();
        name.map(|name| self.shape(name))
    }

    /// The errors that are documented for an operation.
    pub(crate) fn errors(&self, operation: &str) -> Vec<&str> {
        let errors = self.0["operations"][operation]["errors"].as_array();
        let names = errors.into_iter().flatten();
        names.filter_map(|error| error["shape"].as_str()).collect()
    }

    /// A shape by its name.
    pub(crate) fn shape(&self, name: &str) -> &Value {
        &self.0["shapes"][name]
    }

    /// The members of a structure: name, shape, whether it is required.
    pub(crate) fn members<'m>(&'m self, of: &'m Value) -> Vec<(&'m str, &'m Value, bool)> {
        let required: Vec<&Value> = of["required"].as_array().into_iter().flatten().collect();
        let members = of["members"].as_object().expect("members");
        let each = members.iter().map(|(name, member)| {
            let shape = self.shape(member["shape"].as_str().expect("a shape"));
            (name.as_str(), shape, required.contains(&&json!(name)))
        });
        each.collect()
    }

    /// A structure with every member that is required, or with all of them.
    pub(crate) fn structure(&self, of: &Value, all: bool) -> Map<String, Value> {
        let members = self.members(of).into_iter();
        let given = members.filter(|(_, _, required)| all || *required);
        given
            .map(|(name, shape, _)| (name.to_owned(), self.fitting(shape, all)))
            .collect()
    }

    /// A value that fits a shape; of structures, with the required members only unless `all` is set.
    pub(crate) fn fitting(&self, shape: &Value, all: bool) -> Value {
        match shape["type"].as_str().expect("a type") {
            "structure" => Value::Object(self.structure(shape, all)),
            "list" => {
                json!([self.fitting(self.item(shape), all)])
            }
            "map" => json!({"key": "value"}),
            "string" => json!(fitting_text(shape)),
            "blob" => json!("eA=="),
            "boolean" => json!(false),
            "timestamp" => json!(1_600_000_000.5),
            "integer" | "long" => json!(shape["min"].as_i64().unwrap_or(24)),
            other => panic!("a type of the model that the walk does not know: {other}"),
        }
    }

    /// Values at the edges of what fits: every value of an enum, least and greatest numbers and lengths.
    pub(crate) fn edges(&self, shape: &Value) -> Vec<Value> {
        let (min, max) = (shape["min"].as_i64(), shape["max"].as_i64());
        let max_len = max.and_then(|max| usize::try_from(max).ok());
        match shape["type"].as_str().expect("a type") {
            "string" if shape["enum"].is_array() => shape["enum"].as_array().unwrap().clone(),
            "string" if shape["pattern"].is_null() => {
                let longest = max_len.filter(|max| *max < 2_000_000);
                longest
                    .map(|max| json!("é".repeat(max)))
                    .into_iter()
                    .collect()
            }
            "integer" | "long" => [min, max].into_iter().flatten().map(|n| json!(n)).collect(),
            "boolean" => vec![json!(true), json!(false)],
            "map" => {
                let most = (0..max.unwrap_or(1)).map(|n| (format!("walked-{n}"), json!("v")));
                vec![Value::Object(most.collect())]
            }
            "list" => {
                let item = self.item(shape);
                let most = max_len.map(|max| json!(vec![self.fitting(item, false); max]));
                let each = self.edges(item).into_iter().map(|item| json!([item]));
                each.chain(most).collect()
            }
            "structure" => {
                let mut found = Vec::new();
                for (name, inner, _) in self.members(shape) {
                    for edge in self.edges(inner) {
                        let mut value = self.structure(shape, false);
                        value.insert(name.to_owned(), edge);
                        found.push(Value::Object(value));
                    }
                }
                found
            }
            _ => Vec::new(),
        }
    }

    /// Values outside each constraint of a shape and of what is in it.
    pub(crate) fn wrong(&self, shape: &Value) -> Vec<Wrong> {
        let own = self.wrong_itself(shape).into_iter();
        let mut found: Vec<Wrong> = own
            .map(|(why, value)| Wrong {
                why: why.to_owned(),
                path: String::new(),
                value,
            })
            .collect();
        match shape["type"].as_str().expect("a type") {
            "list" => found.extend(self.wrong_items(shape)),
            "structure" => found.extend(self.wrong_members(shape)),
            _ => {}
        }
        found
    }

    fn wrong_itself(&self, shape: &Value) -> Vec<(&'static str, Value)> {
        let (min, max) = (shape["min"].as_i64(), shape["max"].as_i64());
        let over = max.and_then(|max| usize::try_from(max + 1).ok());
        let under = min.filter(|min| *min > 0);
        let mut found = Vec::new();
        match shape["type"].as_str().expect("a type") {
            "integer" | "long" => {
                found.extend(min.map(|min| ("min", json!(min - 1))));
                found.extend(max.map(|max| ("max", json!(max + 1))));
            }
            "string" => {
                found.extend(under.map(|_| ("min", json!(""))));
                // A page token may be a mebibyte long; one byte more is tried as well.
                found.extend(over.map(|over| ("max", json!("a".repeat(over)))));
                let named = shape["enum"].is_array();
                found.extend(named.then(|| ("enum", json!("no such value"))));
                let patterned = shape["pattern"].is_string();
                found.extend(patterned.then(|| ("pattern", json!(" :*\n"))));
            }
            "blob" => {
                let groups = over.map(|over| over.div_ceil(3));
                found.extend(groups.map(|groups| ("max", json!("AAAA".repeat(groups)))));
            }
            "map" => {
                let tags = (0..over.unwrap_or_default()).map(|n| (n.to_string(), json!("v")));
                found.push(("min", json!({})));
                found.push(("max", Value::Object(tags.collect())));
                found.push(("key", json!({"k".repeat(129): "v"})));
                found.push(("value", json!({"k": "v".repeat(257)})));
            }
            "list" => {
                let fitting = self.fitting(self.item(shape), false);
                found.extend(under.map(|_| ("min", json!([]))));
                found.extend(over.map(|over| ("max", json!(vec![&fitting; over]))));
            }
            _ => {}
        }
        found
    }

    /// The shape of what a list holds.
    pub(crate) fn item(&self, list: &Value) -> &Value {
        self.shape(list["member"]["shape"].as_str().expect("a shape"))
    }

    fn wrong_items(&self, list: &Value) -> Vec<Wrong> {
        let item = self.item(list);
        let structures = item["type"] == "structure";
        let each = self.wrong(item).into_iter().map(|one| Wrong {
            why: format!("item: {}", one.why),
            // Texts of a list are answered for together, at its own name.
            path: if structures {
                format!(".1.member{}", one.path)
            } else {
                String::new()
            },
            value: json!([one.value]),
        });
        each.collect()
    }

    fn wrong_members(&self, shape: &Value) -> Vec<Wrong> {
        let mut found = Vec::new();
        for (name, inner, required) in self.members(shape) {
            let place = format!(".{}", lower_first(name));
            if required {
                let mut value = self.structure(shape, false);
                value.remove(name);
                found.push(Wrong {
                    why: format!("{name} missing"),
                    path: place.clone(),
                    value: Value::Object(value),
                });
            }
            for one in self.wrong(inner) {
                let mut value = self.structure(shape, false);
                value.insert(name.to_owned(), one.value);
                found.push(Wrong {
                    why: format!("{name}: {}", one.why),
                    path: format!("{place}{}", one.path),
                    value: Value::Object(value),
                });
            }
        }
        found
    }

    /// Values of other types than a shape's.
    pub(crate) fn mistyped(shape: &Value) -> Vec<Value> {
        let (text, number, list, map) = (json!("text"), json!(1), json!([]), json!({}));
        match shape["type"].as_str().expect("a type") {
            "string" => vec![number, json!(true), list, map],
            "blob" => vec![number, json!(true), list, map, json!("not base64!")],
            "integer" | "long" | "timestamp" => vec![text, json!(true), list, map],
            "boolean" => vec![text, number, list, map],
            "list" => vec![text, number, json!(true), map],
            "map" | "structure" => vec![text, number, json!(true), list],
            _ => Vec::new(),
        }
    }
}

/// A member as `ValidationException` names it.
pub(crate) fn lower_first(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_lowercase() + rest
}

/// A text that fits; one for each pattern of the model, and a new pattern asks for a new line here.
fn fitting_text(shape: &Value) -> String {
    if let Some(value) = shape["enum"][0].as_str() {
        return value.to_owned();
    }
    let arn = "arn:aws:kinesis:us-east-1:000000000000:";
    let candidates = [
        "walked".to_owned(),
        "0".to_owned(),
        "000000000000".to_owned(),
        "abcdefghij0123456789-abc".to_owned(),
        format!("{arn}stream/walked"),
        format!("{arn}stream/walked/consumer/c:1"),
        format!("{arn}queue/walked"),
        format!("{arn}channel/walked"),
        "arn:aws:s3:::bucket".to_owned(),
        "arn:aws:iam::000000000000:role/walked".to_owned(),
        "arn:aws:s3tables:us-east-1:000000000000:bucket/walked".to_owned(),
        "arn:aws:glue:us-east-1:000000000000:schema/a/b".to_owned(),
    ];
    let Some(hint) = shape["pattern"].as_str() else {
        return candidates[0].clone();
    };
    let at = match hint {
        _ if hint.contains("consumer") => 5,
        _ if hint.contains("(stream|") || hint.contains(":stream/") => 4,
        _ if hint.contains(":queue/") => 6,
        _ if hint.contains(":channel/") => 7,
        _ if hint.contains(":s3:::") => 8,
        _ if hint.contains(":iam:") => 9,
        _ if hint.contains(":s3tables:") => 10,
        _ if hint.contains(":glue:") => 11,
        _ if hint.contains("{20}") => 3,
        _ if hint.starts_with("\\d{12}") => 2,
        _ if hint.starts_with("^(0|") => 1,
        _ => 0,
    };
    candidates[at].clone()
}
