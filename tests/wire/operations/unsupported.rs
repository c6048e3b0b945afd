//! What needs no stream: the refusals of operations that are known and not served, and one member outside its
//! constraints for every operation.

use super::stage::{Seen, Stage};
use super::table::NOT_SUPPORTED;
use crate::exchange::Encoding;
use serde_json::Value;

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::process(encoding, &["--limits", "off"]).await;
    not_supported(&mut stage).await;
    validation(&mut stage).await;
    stage.seen
}

/// Whatever is asked for is refused, with the required members as with all.
async fn not_supported(stage: &mut Stage) {
    let model = stage.exchange.model;
    for operation in NOT_SUPPORTED {
        for all in [false, true] {
            let input = model.structure(model.input(operation), all);
            stage
                .refuses(operation, "InvalidArgument", Value::Object(input))
                .await;
        }
    }
}

/// The walk tries every constraint; here it is shown that each operation has checks at all.
async fn validation(stage: &mut Stage) {
    let model = stage.exchange.model;
    for operation in model.operations() {
        let input = model.input(&operation);
        let members = model.members(input);
        if members.is_empty() {
            continue;
        }
        let wrong = members.iter().find_map(|(name, shape, _)| {
            let wrong = model.wrong(shape).into_iter().next()?;
            let mut body = model.structure(input, false);
            body.insert((*name).to_owned(), wrong.value);
            Some(Value::Object(body))
        });
        let wrong = wrong.unwrap_or_else(|| panic!("{operation} has no constraint"));
        stage.refuses(&operation, "Validation", wrong).await;
    }
}
