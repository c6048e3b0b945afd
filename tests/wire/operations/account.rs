//! Limits and settings of an account.

use super::stage::{ANY, Seen, Stage};
use crate::exchange::Encoding;
use millstream_server::Limits;
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

pub(crate) async fn play(encoding: Encoding) -> Seen {
    let mut stage = Stage::driven(encoding, Limits::Off).await;
    limits(&mut stage).await;
    commitment(&mut stage).await;
    stage.seen
}

async fn limits(stage: &mut Stage) {
    stage.create("orders", 3).await;
    stage
        .done("CreateStream", json!({"StreamName": "clicks"}))
        .await;
    let pattern = json!({
        "ShardLimit": ANY, "OpenShardCount": 7,
        "OnDemandStreamCount": 1, "OnDemandStreamCountLimit": ANY,
        "ChannelCount": 0, "ChannelCountLimit": 0,
    });
    stage.answers("DescribeLimits", json!({}), pattern).await;
}

/// A commitment from its beginning to the day after it was to end.
async fn commitment(stage: &mut Stage) {
    let described = |status: &str, times: &[&str]| {
        let mut commitment = json!({"Status": status});
        for time in times {
            commitment[*time] = json!(ANY);
        }
        json!({"MinimumThroughputBillingCommitment": commitment})
    };
    let asked = |status: &str| json!({"MinimumThroughputBillingCommitment": {"Status": status}});
    let none = described("DISABLED", &[]);
    stage
        .answers("DescribeAccountSettings", json!({}), none)
        .await;
    let begun = described("ENABLED", &["StartedAt", "EarliestAllowedEndAt"]);
    stage
        .answers("UpdateAccountSettings", asked("ENABLED"), begun.clone())
        .await;
    let shown = stage
        .answers("DescribeAccountSettings", json!({}), begun)
        .await;
    let at = |name: &str| seconds(&shown["MinimumThroughputBillingCommitment"][name]);
    assert_eq!(at("StartedAt") + DAY, at("EarliestAllowedEndAt"));
    let ending = described(
        "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
        &["StartedAt", "EarliestAllowedEndAt"],
    );
    stage
        .answers("UpdateAccountSettings", asked("DISABLED"), ending)
        .await;
    stage.advance(DAY);
    let ended = described("DISABLED", &["StartedAt", "EndedAt"]);
    for (operation, input) in [
        ("DescribeAccountSettings", json!({})),
        ("UpdateAccountSettings", asked("DISABLED")),
    ] {
        stage.answers(operation, input, ended.clone()).await;
    }
}

fn seconds(time: &Value) -> Duration {
    Duration::from_secs_f64(time.as_f64().unwrap())
}
