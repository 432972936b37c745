//! The known answers of `tests/vectors/rxkad.json`, for unit tests.

use serde_json::Value;

use super::SessionKey;

/// A part of the file.
#[derive(Clone, Debug)]
pub(super) struct Vector(Value);

/// A part of the file, by name.
pub(super) fn get(name: &str) -> Vector {
    let file = include_str!("../../../tests/vectors/rxkad.json");
    let file: Value = serde_json::from_str(file).expect("JSON");
    Vector(file).at(name)
}

impl Vector {
    pub fn at(&self, name: &str) -> Vector {
        Vector(self.0.get(name).unwrap_or_else(|| panic!("no {name}")).clone())
    }

    /// Nothing where it is missing or null.
    pub fn find(&self, name: &str) -> Option<Vector> {
        self.0.get(name).filter(|value| !value.is_null()).cloned().map(Vector)
    }

    pub fn list(&self) -> Vec<Vector> {
        self.0.as_array().expect("a list").iter().cloned().map(Vector).collect()
    }

    pub fn is_text(&self) -> bool {
        self.0.is_string()
    }

    pub fn text(&self) -> String {
        self.0.as_str().expect("text").to_owned()
    }

    pub fn number(&self) -> u32 {
        self.0.as_u64().expect("a number").try_into().expect("32 bits")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let text = self.text();
        let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digits).collect()
    }

    pub fn block(&self) -> u64 {
        u64::from_be_bytes(self.bytes().try_into().expect("8 bytes"))
    }

    pub fn hex_word(&self) -> u32 {
        u32::from_str_radix(&self.text(), 16).expect("hex")
    }

    pub fn key(&self) -> SessionKey {
        SessionKey::new(self.bytes().try_into().expect("8 bytes"))
    }
}
