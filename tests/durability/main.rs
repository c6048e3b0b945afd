//! The server process under kills, damage and garbage.
