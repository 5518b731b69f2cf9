//! `_rescued_data`: what fits no column, with enough context to put it back.
//!
//! A JSON object. A top-level field is stored under its name, a nested one under its JSON Pointer (RFC 6901, for
//! example `/user/age` or `/items/0/price`). Values are verbatim. If a record had the same name more than once, the
//! values without a column are in `{"_duplicates":[…]}`, which tells them from one value that is an array.

use std::collections::HashMap;

/// One value that has no column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rescued {
    pub(super) key: String,
    /// Raw JSON.
    pub(super) value: String,
}

/// The path from the record to a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValuePath<'a> {
    pub(super) parent: Option<&'a ValuePath<'a>>,
    pub(super) step: Step<'a>,
}

/// One step down.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl ValuePath<'_> {
    fn key(&self) -> String {
        match (self.parent, self.step) {
            (None, Step::Field(name)) if !name.starts_with('/') => name.to_owned(),
            _ => {
                let mut pointer = String::new();
                self.write_pointer(&mut pointer);
                pointer
            }
        }
    }

    fn write_pointer(&self, pointer: &mut String) {
        if let Some(parent) = self.parent {
            parent.write_pointer(pointer);
        }
        pointer.push('/');
        match self.step {
            Step::Item(index) => pointer.push_str(&index.to_string()),
            Step::Field(name) => pointer.push_str(&name.replace('~', "~0").replace('/', "~1")),
        }
    }

    /// Whether it is one of these top-level fields.
    pub(super) fn is_field_of_record(&self, names: &[&str]) -> bool {
        self.parent.is_none() && matches!(self.step, Step::Field(name) if names.contains(&name))
    }

    /// Rescues the value at this path.
    pub(super) fn rescue(&self, value: &str) -> Rescued {
        Rescued { key: self.key(), value: value.to_owned() }
    }
}

/// The JSON object of everything rescued from one record.
pub(super) fn to_json(rescued: &[Rescued]) -> String {
    let (mut keys, mut values) = (Vec::new(), HashMap::<&str, Vec<&str>>::new());
    for Rescued { key, value } in rescued {
        let same = values.entry(key).or_default();
        if same.is_empty() {
            keys.push(key.as_str());
        }
        same.push(value);
    }
    let fields = keys.iter().filter_map(|key| {
        let value = match values.get(key)?.as_slice() {
            [one] => (*one).to_owned(),
            several => format!("{{\"_duplicates\":[{}]}}", several.join(",")),
        };
        Some(format!("{}:{value}", serde_json::Value::from(*key)))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_the_value_was() {
        let user = ValuePath { parent: None, step: Step::Field("user") };
        let tags = ValuePath { parent: Some(&user), step: Step::Field("a/b~c") };
        let first = ValuePath { parent: Some(&tags), step: Step::Item(0) };
        let odd = ValuePath { parent: None, step: Step::Field("/odd") };
        let keys = [user, tags, first, odd].map(|path| path.rescue("1").key);
        assert_eq!(keys, ["user", "/user/a~1b~0c", "/user/a~1b~0c/0", "/~1odd"]);
        let document = serde_json::json!({"user": {"a/b~c": [7]}});
        assert_eq!(document.pointer(&keys[2]), Some(&serde_json::json!(7)));
    }

    #[test]
    fn values_stay_as_they_were_written_and_a_name_that_came_twice_has_both() {
        let rescued = |key: &str, value: &str| Rescued { key: key.to_owned(), value: value.to_owned() };
        let json = to_json(&[rescued("a", "1.10"), rescued("\"", "{}"), rescued("a", "null")]);
        assert_eq!(json, r#"{"a":{"_duplicates":[1.10,null]},"\"":{}}"#);
    }
}
