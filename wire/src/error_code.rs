//! The AWS error codes, one variant each.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $retry:literal;)+) => {
        /// What an operation can fail with, by AWS's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)+];

            /// The name on the wire, the value of `__type`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)+ }
            }

            /// The HTTP status AWS answers with.
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status,)+ }
            }

            /// Whether the same request may succeed later without any change.
            pub fn is_retryable(self) -> bool {
                match self { $(ErrorCode::$variant => $retry,)+ }
            }

            /// The code of a wire name; a `namespace#` prefix is ignored.
            pub fn from_name(name: &str) -> Option<ErrorCode> {
                let bare = name.rsplit_once('#').map_or(name, |(_, bare)| bare);
                match bare { $($name => Some(ErrorCode::$variant),)+ _ => None }
            }
        }
    };
}

error_codes! {
    /// The caller may not do this.
    AccessDenied = "AccessDeniedException", 400, false;
    /// The request was a dry run and would have succeeded.
    DryRunOperation = "DryRunOperationException", 400, false;
    /// A page token is older than 300 seconds.
    ExpiredNextToken = "ExpiredNextTokenException", 400, false;
    /// A shard iterator is older than 300 seconds.
    ExpiredIterator = "ExpiredIteratorException", 400, false;
    /// The signature does not have the parts it needs.
    IncompleteSignature = "IncompleteSignatureException", 400, false;
    /// Something went wrong inside; the log has it under the request id.
    InternalFailure = "InternalFailure", 500, true;
    /// An argument is not acceptable in this state or combination.
    InvalidArgument = "InvalidArgumentException", 400, false;
    /// Both kinds of signature were given, or one that does not verify.
    InvalidSignature = "InvalidSignatureException", 400, false;
    /// A quota would be exceeded, or calls come too fast.
    LimitExceeded = "LimitExceededException", 400, true;
    /// No signature was given.
    MissingAuthenticationToken = "MissingAuthenticationTokenException", 400, false;
    /// A shard's throughput is exhausted for the moment.
    ProvisionedThroughputExceeded = "ProvisionedThroughputExceededException", 400, true;
    /// The stream is not in a state that allows this.
    ResourceInUse = "ResourceInUseException", 400, false;
    /// No such stream, shard or consumer.
    ResourceNotFound = "ResourceNotFoundException", 400, false;
    /// The body is not what the operation's shape says.
    Serialization = "SerializationException", 400, false;
    /// The server cannot take more at the moment.
    ServiceUnavailable = "ServiceUnavailable", 503, true;
    /// No such operation.
    UnknownOperation = "UnknownOperationException", 400, false;
    /// A member is outside its constraint.
    Validation = "ValidationException", 400, false;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
            let qualified = format!("com.amazonaws.kinesis.v20131202#{}", code.name());
            assert_eq!(ErrorCode::from_name(&qualified), Some(*code));
        }
    }
}
