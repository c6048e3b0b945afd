//! A checkpoint in a transaction of the application, on the PostgreSQL database that holds the leases.

use super::fault::Place;
use super::schema::{self, VERSION};
use super::transaction::lease_on;
use crate::error::Error;
use crate::lease::transaction::sealed::Sealed;
use crate::lease::{CheckpointStep, LeaseDatabase, PendingCheckpoint};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};

impl Sealed for Postgres {}

impl LeaseDatabase for Postgres {
    /// The row stays locked until the transaction ends, so nobody takes the lease before. A transaction that stands still for
    /// longer than leases live is ended by the server; a stricter limit of the application's own stays.
    async fn store_checkpoint(
        connection: &mut PgConnection,
        step: CheckpointStep<'_>,
    ) -> Result<(), Error> {
        step.moves_forward()?;
        let place = Place::of_transaction();
        let token = step.token;
        let patience_ms = u64::try_from(step.patience.as_millis()).unwrap_or(u64::MAX);
        let row = sqlx::query(
            "UPDATE millstream.leases SET checkpoint = $1
             WHERE application = $2 AND stream = $3 AND lease_key = $4
                   AND lease_counter = $5 AND lease_owner = $6 AND checkpoint = $7
                   AND (SELECT version FROM millstream.schema_version) = $8
             RETURNING pending_checkpoint,
                 CASE WHEN current_setting('idle_in_transaction_session_timeout')::interval
                           BETWEEN '1 ms'::interval AND $9::interval
                      THEN NULL
                      ELSE set_config('idle_in_transaction_session_timeout', $9, true)
                 END",
        )
        .bind(step.position.to_string())
        .bind(step.application)
        .bind(&token.key.stream)
        .bind(&token.key.shard_id)
        .bind(token.counter.cast_signed())
        .bind(&token.owner)
        .bind(step.base.to_string())
        .bind(VERSION)
        .bind(format!(
            "{} ms",
            patience_ms.clamp(1, i32::MAX.cast_unsigned().into())
        ))
        .fetch_optional(&mut *connection)
        .await
        .map_err(|fault| place.explain(fault))?;
        match row {
            Some(row) => forget_covered(connection, &row, step)
                .await
                .map_err(|fault| place.explain(fault)),
            None => Err(refusal(connection, &place, step).await?),
        }
    }
}

async fn refusal(
    connection: &mut PgConnection,
    place: &Place,
    step: CheckpointStep<'_>,
) -> Result<Error, Error> {
    let version = schema::version(connection).await;
    let version = version.map_err(|fault| place.explain(fault))?;
    if version != VERSION {
        return Ok(schema::unknown_version(place, version));
    }
    let lease = lease_on(connection, place, step.application, &step.token.key).await?;
    Ok(step.refusal(lease.as_ref()))
}

/// Removes the pending checkpoint if this one covers it.
async fn forget_covered(
    connection: &mut PgConnection,
    row: &PgRow,
    step: CheckpointStep<'_>,
) -> Result<(), sqlx::Error> {
    let pending: Option<String> = row.try_get("pending_checkpoint")?;
    let Some(Ok(position)) = pending.map(|pending| pending.parse()) else {
        return Ok(());
    };
    let pending = PendingCheckpoint {
        position,
        state: Vec::new(),
    };
    if !step.covers(&pending) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE millstream.leases SET pending_checkpoint = NULL, pending_state = NULL
         WHERE application = $1 AND stream = $2 AND lease_key = $3",
    )
    .bind(step.application)
    .bind(&step.token.key.stream)
    .bind(&step.token.key.shard_id)
    .execute(connection)
    .await?;
    Ok(())
}
