//! Each operation of the model: what is outside a constraint, of another type, or missing is refused as AWS
//! refuses it, and every documented member is accepted.

use crate::SERVER;
use crate::model::{Model, lower_first};
use millstream_wire::Operation;
use serde_json::{Map, Value, json};
use support::ServerProcess;
use support::client::RawClient;

/// Answers that say that a member was not accepted, or that the server failed over it.
const NOT_ACCEPTED: [&str; 5] = [
    "ValidationException",
    "SerializationException",
    "UnknownOperationException",
    "InternalFailure",
    "no answer",
];

/// What differed, to be told all at once.
#[derive(Default)]
struct Differences(Vec<String>, usize);

impl Differences {
    async fn call(
        &mut self,
        client: &RawClient,
        operation: &str,
        body: &Map<String, Value>,
    ) -> (String, String) {
        self.1 += 1;
        match client.call(operation, &Value::Object(body.clone())).await {
            Ok(_) => (String::new(), String::new()),
            Err(error) => (
                error.code().unwrap_or("no answer").to_owned(),
                error.to_string(),
            ),
        }
    }

    fn add(&mut self, operation: &str, member: &str, what: impl Into<String>) {
        let what: String = what.into().chars().take(400).collect();
        self.0.push(format!("{operation}.{member}: {what}"));
    }
}

async fn constraints(model: &Model, client: &RawClient, operation: &str, found: &mut Differences) {
    let input = model.input(operation);
    for (member, shape, required) in model.members(input) {
        let mut cases = model.wrong(shape);
        if required {
            cases.push(crate::model::Wrong {
                why: "missing".to_owned(),
                path: String::new(),
                value: Value::Null,
            });
        }
        for case in cases {
            let mut body = model.structure(input, false);
            body.insert(member.to_owned(), case.value);
            let (code, text) = found.call(client, operation, &body).await;
            let named = format!("at '{}{}'", lower_first(member), case.path);
            if code != "ValidationException" || !text.contains(&named) {
                let why = case.why;
                found.add(
                    operation,
                    member,
                    format!("{why}: no violation {named} in {code} {text}"),
                );
            }
        }
    }
}

async fn types(model: &Model, client: &RawClient, operation: &str, found: &mut Differences) {
    let input = model.input(operation);
    for (member, shape, _) in model.members(input) {
        for value in Model::mistyped(shape) {
            let mut body = model.structure(input, false);
            body.insert(member.to_owned(), value.clone());
            let (code, text) = found.call(client, operation, &body).await;
            if code != "SerializationException" {
                found.add(operation, member, format!("{value} gives {code} {text}"));
            }
        }
    }
}

/// Each member by itself with the required ones, then all together. What the operation says of them when it
/// runs does not matter here, only that it runs.
async fn accepted(model: &Model, client: &RawClient, operation: &str, found: &mut Differences) {
    let input = model.input(operation);
    let mut bodies = vec![("all members", model.structure(input, true))];
    for (member, shape, _) in model.members(input) {
        for value in [model.fitting(shape, true)]
            .into_iter()
            .chain(model.edges(shape))
        {
            let mut body = model.structure(input, false);
            body.insert(member.to_owned(), value);
            bodies.push((member, body));
        }
    }
    for (member, body) in bodies {
        let (code, text) = found.call(client, operation, &body).await;
        // The validations that depend on the stream: whether records need a key, and its mode.
        let by_stream = text.contains("artitionKey' failed") && text.contains("Value null")
            || text.contains("is in On-Demand mode");
        if NOT_ACCEPTED.contains(&code.as_str()) && !by_stream {
            found.add(operation, member, format!("not accepted: {code} {text}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_of_every_operation_is_checked_as_the_model_says() {
    let model = Model::get().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    let mut found = Differences::default();
    let mut walked = 0;
    for operation in model.operations() {
        if Operation::from_name(&operation).is_none() {
            continue;
        }
        walked += 1;
        // It is deleted, changed and counted on the way.
        let _ = client
            .call(
                "CreateStream",
                &json!({"StreamName": "walked", "ShardCount": 1}),
            )
            .await;
        constraints(model, &client, &operation, &mut found).await;
        types(model, &client, &operation, &mut found).await;
        accepted(model, &client, &operation, &mut found).await;
    }
    println!("{walked} operations, {} requests", found.1);
    assert_eq!(
        walked,
        Operation::ALL.len(),
        "the model has every operation that is served"
    );
    assert!(
        found.0.is_empty(),
        "{} differences:\n{}",
        found.0.len(),
        found.0.join("\n")
    );
    assert!(
        found.1 > 20 * walked,
        "{} requests are too few to have walked the model",
        found.1
    );
    client.must("ListStreams", json!({})).await;
}
