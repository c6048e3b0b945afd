//! Every operation of the model, shown to succeed and to fail as documented; the table of operations in README
//! is what is seen here.
//!
//! What a process that runs for seconds cannot show, that iterators expire or that a thousand calls come within
//! one second, is shown by a server in this process whose clock is driven.

mod account;
mod consumers;
mod expiry;
mod limits;
mod rates;
mod records;
mod resources;
mod settings;
mod shards;
mod stage;
mod states;
mod streams;
mod table;
mod unsupported;

use crate::exchange::Encoding;
use crate::model::Model;
pub(crate) use stage::Seen;
pub(crate) use table::NOT_SUPPORTED;

use support::generated;
use tokio::sync::OnceCell;

/// What is seen when every scenario is played in one encoding; they are played once for all tests.
pub(crate) async fn seen(encoding: Encoding) -> &'static Seen {
    static JSON: OnceCell<Seen> = OnceCell::const_new();
    static CBOR: OnceCell<Seen> = OnceCell::const_new();
    let cell = match encoding {
        Encoding::Json => &JSON,
        Encoding::Cbor => &CBOR,
    };
    cell.get_or_init(|| play(encoding)).await
}

async fn play(encoding: Encoding) -> Seen {
    let (streams, shards, records, consumers, settings, resources) = tokio::join!(
        streams::play(encoding),
        shards::play(encoding),
        records::play(encoding),
        consumers::play(encoding),
        settings::play(encoding),
        resources::play(encoding),
    );
    let (account, states, limits, rates, expiry, unsupported) = tokio::join!(
        account::play(encoding),
        states::play(encoding),
        limits::play(encoding),
        rates::play(encoding),
        expiry::play(encoding),
        unsupported::play(encoding),
    );
    let mut seen = Seen::default();
    for family in [
        streams,
        shards,
        records,
        consumers,
        settings,
        resources,
        account,
        states,
        limits,
        rates,
        expiry,
        unsupported,
    ] {
        seen.merge(family);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_outcome_is_shown_or_its_absence_explained() {
    let model = Model::get().await;
    let json = seen(Encoding::Json).await;
    let wrong = table::check(model, json);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let cbor = seen(Encoding::Cbor).await;
    assert_eq!(
        json.outcomes, cbor.outcomes,
        "one encoding shows what the other does not"
    );
    generated::section("operations", &table::write(model, json));
}
