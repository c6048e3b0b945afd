//! The files of segments that are open, each of them once. Who wants to write into a file that was replaced must know
//! whether anybody reads from it. Plain data; whoever holds it locks it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::log::disk::DiskFile;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(BTreeMap<u64, Weak<dyn DiskFile>>);

impl OpenFiles {
    /// The file of a segment, if it is open.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.0.get(&number).and_then(Weak::upgrade)
    }

    /// From now on this is the file of that segment.
    pub(crate) fn insert(&mut self, number: u64, file: &Arc<dyn DiskFile>) {
        self.0.retain(|_, file| file.strong_count() > 0);
        self.0.insert(number, Arc::downgrade(file));
    }

    /// From now on nobody gets a hold of the file of that segment who has none.
    pub(crate) fn forget(&mut self, number: u64) {
        self.0.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;
    use crate::log::memory_disk::MemoryDisk;

    #[test]
    fn a_file_is_kept_as_long_as_somebody_has_it() {
        let disk = MemoryDisk::new();
        let (first, second) = (disk.create("1", 1).unwrap(), disk.create("2", 1).unwrap());
        let mut open = OpenFiles::default();
        open.insert(1, &first);
        open.insert(2, &second);
        let again = open.get(1).unwrap();
        assert!(Arc::ptr_eq(&again, &first));
        assert_eq!(Arc::strong_count(&first), 2);
        drop((again, first));
        assert!(open.get(1).is_none());
        open.insert(3, &second);
        assert_eq!(open.0.len(), 2, "what is closed is not kept");
        open.forget(2);
        assert!(open.get(2).is_none() && open.get(3).is_some());
    }
}
