//! Request and response structs by operation family.
