//! A rewritten segment: its blocks, and the footer that names them. Pure.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::log::check::committed::{Input, without_trailer};
use crate::log::check::examined::{Examined, shards_after};
use crate::log::check::report::{Finding, Lost};
use crate::log::check::survey::{Survey, survey};
use crate::log::entry::TRAILER_BYTES;
use crate::log::extent::{Extent, Index};
use crate::log::frame::{Frame, HEADER_BYTES, Kind, Place};
use crate::log::packed::{self, unpack, visit_pieces};
use crate::log::packed_index::{PackedIndex, PackedShard};
use crate::log::plan::EPOCH_SHIFT;
use crate::log::segment::as_u64;
use crate::log::{Error, LogShard, Metadata};

/// Looks through it.
pub(crate) fn examine<M: Metadata>(input: &Input<'_, M>) -> Result<Examined<M>, Error> {
    let (body, trailer) = without_trailer(input.bytes);
    let survey = survey(body, input.magic, input.number)?;
    let mut found = Found {
        number: input.number,
        bytes: body,
        findings: Vec::new(),
        records: 0,
    };
    found.holes(&survey, trailer, input.bytes.len());
    let footer = found.footer(&survey);
    let (index, is_indexed) = match &footer {
        Some((_, index)) => (found.held(&survey, index), true),
        None => (found.gather(&survey, input), false),
    };
    // Without its footer, what lies between the one before and the one after is all that is known.
    let commit = input.before.map_or(1, |before| before.commit + 1);
    let guessed = Place {
        segment: input.number,
        commit,
        durable: commit - 1,
    };
    let newest = index.shards.values().filter_map(|part| part.blocks.last());
    let epoch = newest.map(|block| block.end >> EPOCH_SHIFT).max();
    Ok(Examined {
        number: input.number,
        is_whole: found.findings.is_empty(),
        findings: found.findings,
        notes: Vec::new(),
        padding: survey.padding,
        begins: None,
        place: footer.map_or(guessed, |(place, _)| place),
        index: Index::Packed(index),
        state: None,
        is_sealed: true,
        is_indexed,
        epoch: epoch.unwrap_or_default(),
        records: found.records,
        transactions: 0,
    })
}

struct Found<'a> {
    number: u64,
    bytes: &'a [u8],
    findings: Vec<Finding>,
    records: u64,
}

impl Found<'_> {
    fn finding(&mut self, at: usize, end: usize, problem: impl Into<String>) {
        let finding = Finding::new(self.number, as_u64(at), as_u64(end), problem);
        self.findings.push(finding);
    }

    fn holes(&mut self, survey: &Survey<'_>, trailer: Option<u64>, len_bytes: usize) {
        for hole in &survey.holes {
            self.finding(hole.at, hole.end, hole.fault.to_string());
        }
        let last = survey.frames.last();
        let footer_at = last.filter(|(_, frame)| frame.kind == Kind::PackedFooter);
        let footer_at = footer_at.map(|(at, _)| as_u64(*at));
        match (footer_at, trailer, survey.tail) {
            (Some(at), Some(led), None) if at == led => {}
            (Some(_), Some(_), None) => {
                let at = len_bytes.saturating_sub(TRAILER_BYTES);
                self.finding(at, len_bytes, "the trailer does not lead to the footer");
            }
            (Some(_), None, Some(tail)) => {
                self.finding(tail.at, len_bytes, "the trailer does not hold");
            }
            (_, _, Some(tail)) => {
                self.finding(tail.at, len_bytes, format!("no footer: {}", tail.fault));
            }
            (Some(_), None, None) => self.finding(len_bytes, len_bytes, "the trailer is missing"),
            (None, _, None) => self.finding(len_bytes, len_bytes, "the footer is missing"),
        }
    }

    fn footer(&mut self, survey: &Survey<'_>) -> Option<(Place, PackedIndex)> {
        let (at, frame) = survey.frames.last()?;
        if frame.kind != Kind::PackedFooter {
            return None;
        }
        let index = PackedIndex::decode(frame.body, as_u64(*at));
        if index.is_none() {
            let end = at + HEADER_BYTES + frame.body.len();
            self.finding(*at, end, "the footer cannot be understood");
        }
        Some((frame.place, index?))
    }

    /// The footer's index without the blocks that do not hold, which are told.
    fn held(&mut self, survey: &Survey<'_>, index: &PackedIndex) -> PackedIndex {
        let mut held = PackedIndex {
            generation: index.generation,
            shards: BTreeMap::new(),
        };
        for (shard, part) in &index.shards {
            let mut kept = PackedShard {
                start: part.start,
                start_time_ms: part.start_time_ms,
                blocks: Vec::new(),
            };
            for extent in &part.blocks {
                if self.holds(survey, *shard, extent) {
                    self.records += u64::from(extent.count);
                    kept.blocks.push(*extent);
                } else {
                    self.lose(*shard, extent);
                }
            }
            held.shards.insert(*shard, kept);
        }
        held
    }

    fn holds(&self, survey: &Survey<'_>, shard: LogShard, extent: &Extent) -> bool {
        let Ok(at) = usize::try_from(extent.offset) else {
            return false;
        };
        let found = survey.frames.binary_search_by_key(&at, |(at, _)| *at);
        let Some((_, frame)) = found.ok().and_then(|found| survey.frames.get(found)) else {
            return false;
        };
        let bytes = self.frame(at, frame);
        let is_as_long = u32::try_from(bytes.len()) == Ok(extent.length);
        let holds = || {
            let pieces = unpack(&bytes, shard, extent)?;
            visit_pieces(&pieces, extent, |_| ControlFlow::Continue(()))
        };
        frame.kind == Kind::Packed && is_as_long && holds().is_some()
    }

    fn frame(&self, at: usize, frame: &Frame<'_>) -> Bytes {
        let end = at + HEADER_BYTES + frame.body.len();
        Bytes::copy_from_slice(self.bytes.get(at..end).unwrap_or_default())
    }

    fn lose(&mut self, shard: LogShard, extent: &Extent) {
        let lost = Lost {
            shard,
            first: extent.first,
            end: extent.end,
            records: Some(u64::from(extent.count)),
        };
        let around =
            |finding: &&mut Finding| (finding.offset..finding.end).contains(&extent.offset);
        if let Some(finding) = self.findings.iter_mut().find(around) {
            finding.lose(lost);
            return;
        }
        let end = extent.offset + u64::from(extent.length);
        let problem = "the block is not the one that the footer says";
        let mut finding = Finding::new(self.number, extent.offset, end, problem);
        finding.lose(lost);
        self.findings.push(finding);
    }

    /// An index of the blocks that hold, where there is no footer.
    fn gather<M>(&mut self, survey: &Survey<'_>, input: &Input<'_, M>) -> PackedIndex {
        let mut index = PackedIndex::default();
        if let Some(before) = input.before {
            index.shards = shards_after(&before.ends);
        }
        for (at, frame) in &survey.frames {
            if frame.kind != Kind::Packed {
                continue;
            }
            let bytes = self.frame(*at, frame);
            let described = packed::describe(&bytes, as_u64(*at));
            let Some((shard, extent)) = described else {
                self.finding(*at, at + bytes.len(), "the block cannot be understood");
                continue;
            };
            let part = index.shards.entry(shard).or_default();
            let last = part
                .blocks
                .last()
                .map(|block| (block.end, block.last_time_ms));
            let (next, time_ms) = last.unwrap_or((part.start, part.start_time_ms));
            if extent.first < next || extent.time_ms < time_ms {
                self.finding(*at, at + bytes.len(), "counters or times fall back");
                self.lose(shard, &extent);
                continue;
            }
            self.records += u64::from(extent.count);
            part.blocks.push(extent);
        }
        index
    }
}
