//! What the server promises about data, against the real binary: kills, damage, races, hostile bytes.
//!
//! Each guarantee (S1 to S10) is judged by the checkers of the support library, from raw JSON; that the
//! checkers notice a lost, doubled, reordered or reused record is tested beside them. That the log's own
//! model check notices seeded bugs (an answer before the sync, a reused counter, an ignored seal, a skipped
//! batch) is tested in the server, in `log/tests/model.rs`; power cuts and failing disks are tested there too.

mod clean_stop;
mod clock_steps;
mod floods;
mod full_disk;
mod honest_start;
mod kill_nine;
mod linearizable;
mod offline;
mod overload;
mod puts;
mod reshard;
mod reshard_races;
mod sealed;
mod segment_file;
mod slow_disk;
mod starts_and_stops;
mod subscribers;
mod tailing_readers;
mod tiled;
mod torn_tail;
mod unbreakable;
mod witness;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
