//! Enums of the model. Each takes a value it does not know, so that validation can name it and a
//! client outlives a new one.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

use super::validate::{View, Viewed};
use super::value::Text;

macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A value this version does not know.
            Other(String),
        }

        impl $name {
            /// The value on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    _ => Self::Other(text.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Text::deserialize(deserializer).map(|text| Self::from(text.as_str()))
            }
        }

        impl Viewed for $name {
            fn view(&self) -> View<'_> {
                View::Text(self.as_str())
            }
        }
    };
}

open_enum! {
    /// Where a shard iterator starts.
    ShardIteratorType {
        /// At the record of this sequence number.
        AtSequenceNumber = "AT_SEQUENCE_NUMBER",
        /// Right after the record of this sequence number.
        AfterSequenceNumber = "AFTER_SEQUENCE_NUMBER",
        /// At the oldest record still retained.
        TrimHorizon = "TRIM_HORIZON",
        /// Just past the newest record.
        Latest = "LATEST",
        /// At the first record that arrived at or after this time.
        AtTimestamp = "AT_TIMESTAMP",
    }
}

open_enum! {
    /// What a stream is doing.
    StreamStatus {
        /// Not there yet.
        Creating = "CREATING",
        /// Going away.
        Deleting = "DELETING",
        /// Serving.
        Active = "ACTIVE",
        /// Serving, while its shards change.
        Updating = "UPDATING",
    }
}

open_enum! {
    /// What a consumer is doing.
    ConsumerStatus {
        /// Not there yet.
        Creating = "CREATING",
        /// Going away.
        Deleting = "DELETING",
        /// Ready to subscribe.
        Active = "ACTIVE",
    }
}

open_enum! {
    /// Who decides on the number of shards.
    StreamMode {
        /// The owner.
        Provisioned = "PROVISIONED",
        /// The service.
        OnDemand = "ON_DEMAND",
    }
}

open_enum! {
    /// How records are encrypted at rest.
    EncryptionType {
        /// Not at all.
        None = "NONE",
        /// With a key of the key management service.
        Kms = "KMS",
    }
}

open_enum! {
    /// What spreads records over shards.
    RecordDistributionStrategy {
        /// The service, ignoring partition keys.
        Auto = "AUTO",
        /// The hash of the partition key.
        UserPartitionKey = "USER_PARTITION_KEY",
    }
}

open_enum! {
    /// Which shards to list.
    ShardFilterType {
        /// Those after a shard id.
        AfterShardId = "AFTER_SHARD_ID",
        /// Those open at the trim horizon.
        AtTrimHorizon = "AT_TRIM_HORIZON",
        /// Those open at the trim horizon or later.
        FromTrimHorizon = "FROM_TRIM_HORIZON",
        /// Those open now.
        AtLatest = "AT_LATEST",
        /// Those open at a time.
        AtTimestamp = "AT_TIMESTAMP",
        /// Those open at a time or later.
        FromTimestamp = "FROM_TIMESTAMP",
    }
}
