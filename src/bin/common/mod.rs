//! What the two binaries share: their command lines, and service 147.

#![allow(dead_code)] // each binary uses a part of it

pub mod args;
pub mod body;
pub mod chaos;
pub mod mask;
pub mod pieces;
pub mod security;
pub mod service;
