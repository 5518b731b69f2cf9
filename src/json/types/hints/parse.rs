//! Parses hints: comma-separated, each with a path, a type and an optional comment.

use std::collections::HashSet;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, TimeUnit};

use super::scan::Scanner;
use super::{Hint, HintError};
use crate::json::types::ddl::commented;
use crate::json::types::evolve::list_of;
use crate::json::types::lattice::MAX_DEPTH;
use crate::json::types::names::{column, name_key};

/// The maximum nesting depth of paths and types.
const DEPTH_LIMIT: usize = MAX_DEPTH;

/// Types that may be written, not counting aliases.
const KNOWN: [&str; 15] = [
    "boolean",
    "tinyint",
    "smallint",
    "int",
    "bigint",
    "float",
    "double",
    "decimal",
    "string",
    "varchar",
    "date",
    "timestamp",
    "timestamp_ntz",
    "array",
    "struct",
];

/// Aliases, known to the suggestion.
const ALSO_KNOWN: [&str; 9] = ["byte", "short", "integer", "long", "real", "dec", "numeric", "char", "map"];

/// Parses hints in the syntax of `cloudFiles.schemaHints`. A trailing comma is allowed.
///
/// # Errors
/// When they cannot be parsed, name a type that JSON or the loader does not have, or give a column two types.
pub(crate) fn parse_hints(ddl: &str) -> Result<Vec<Hint>, HintError> {
    let mut parser = Parser { scanner: Scanner::new(ddl), depth: 0 };
    let mut hints = Vec::new();
    let mut paths = HashSet::new();
    while !parser.scanner.is_at_end() {
        let hint = parser.hint()?;
        let path: Vec<String> = hint.path.iter().map(|name| name_key(name)).collect();
        if !paths.insert(path) {
            let problem = format!("`{}` already has a hint; remove one of the two", hint.path.join("."));
            return Scanner::error(hint.position, problem);
        }
        hints.push(hint);
        if !parser.scanner.is_at_end() {
            parser.scanner.require(',', "a comma before the next column")?;
        }
    }
    Ok(hints)
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    depth: usize,
}

impl Parser<'_> {
    fn hint(&mut self) -> Result<Hint, HintError> {
        let position = self.scanner.position();
        let mut path = vec![self.scanner.name()?];
        while self.scanner.take('.') {
            path.push(self.scanner.name()?);
        }
        if path.len() > DEPTH_LIMIT {
            return Scanner::error(position, format!("the path is longer than {DEPTH_LIMIT} names; shorten it"));
        }
        self.depth = path.len();
        let data_type = self.typed()?;
        Ok(Hint { path, data_type, comment: self.comment()?, position })
    }

    /// A type, after an optional colon.
    fn typed(&mut self) -> Result<DataType, HintError> {
        self.scanner.take(':');
        let position = self.scanner.position();
        let Some(word) = self.scanner.word() else { return self.scanner.expected("a type") };
        Ok(match word.to_lowercase().as_str() {
            "boolean" => DataType::Boolean,
            "byte" | "tinyint" => DataType::Int8,
            "short" | "smallint" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "long" | "bigint" => DataType::Int64,
            "float" | "real" => DataType::Float32,
            "double" => DataType::Float64,
            "decimal" | "dec" | "numeric" => self.decimal()?,
            "string" => DataType::Utf8,
            "varchar" | "char" => self.text()?,
            "date" => DataType::Date32,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "array" => self.nested(position, Self::array)?,
            "struct" => self.nested(position, Self::fields)?,
            "binary" => {
                return Scanner::error(position, "JSON has no `binary`; use string and decode it when reading");
            }
            "map" => {
                let problem = "`map` is not supported; use string to keep the JSON, or struct if you know the names";
                return Scanner::error(position, problem);
            }
            _ => return Scanner::error(position, unknown(word)),
        })
    }

    fn nested(
        &mut self,
        position: usize,
        inner: fn(&mut Self) -> Result<DataType, HintError>,
    ) -> Result<DataType, HintError> {
        if self.depth >= DEPTH_LIMIT {
            return Scanner::error(
                position,
                format!("types are nested more than {DEPTH_LIMIT} levels deep; use string from here on"),
            );
        }
        self.scanner.require('<', "`<`, as in array<string> or struct<name: string>")?;
        self.depth += 1;
        let data_type = inner(self)?;
        self.depth -= 1;
        Ok(data_type)
    }

    fn array(&mut self) -> Result<DataType, HintError> {
        let element = self.typed()?;
        self.scanner.require('>', "`>` after the element type")?;
        Ok(list_of(element))
    }

    fn fields(&mut self) -> Result<DataType, HintError> {
        let mut fields: Vec<Field> = Vec::new();
        let mut keys = HashSet::new();
        loop {
            let position = self.scanner.position();
            let name = self.scanner.name()?;
            if !keys.insert(name_key(&name)) {
                let problem = format!("the struct has two fields `{name}` (case is ignored); remove one");
                return Scanner::error(position, problem);
            }
            let data_type = self.typed()?;
            fields.push(commented(column(&name, data_type), self.comment()?.as_deref()));
            if self.scanner.take('>') {
                return Ok(DataType::Struct(fields.into()));
            }
            self.scanner.require(',', "a comma before the next field, or `>`")?;
        }
    }

    fn decimal(&mut self) -> Result<DataType, HintError> {
        // Spark's default for a decimal without precision.
        let (mut precision, mut scale) = (10, 0);
        if self.scanner.take('(') {
            precision = self.number("a precision", 1, DECIMAL128_MAX_PRECISION)?;
            if self.scanner.take(',') {
                scale = self.number("a scale", 0, precision)?;
            }
            self.scanner.require(')', "`)`")?;
        }
        // A scale is at most 38.
        Ok(DataType::Decimal128(precision, scale.cast_signed()))
    }

    /// A string type whose length Delta does not keep.
    fn text(&mut self) -> Result<DataType, HintError> {
        if self.scanner.take('(') {
            self.number("a length", 1, u32::MAX)?;
            self.scanner.require(')', "`)`")?;
        }
        Ok(DataType::Utf8)
    }

    fn number<N>(&mut self, what: &str, least: N, most: N) -> Result<N, HintError>
    where
        N: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let position = self.scanner.position();
        let number = self.scanner.word().and_then(|word| word.parse().ok());
        match number.filter(|number| (&least..=&most).contains(&number)) {
            Some(number) => Ok(number),
            None => Scanner::error(position, format!("{what} must be a number from {least} to {most}")),
        }
    }

    fn comment(&mut self) -> Result<Option<String>, HintError> {
        let position = self.scanner.position();
        if self.scanner.take_word("not") {
            return Scanner::error(position, "any record may lack the column, so `not null` is not allowed; remove it");
        }
        if self.scanner.take_word("comment") { self.scanner.string().map(Some) } else { Ok(None) }
    }
}

fn unknown(word: &str) -> String {
    let typed = word.to_lowercase();
    let names = KNOWN.into_iter().chain(ALSO_KNOWN);
    let nearest = names.min_by_key(|name| strsim::damerau_levenshtein(&typed, name)).unwrap_or("string");
    format!("unknown type `{word}`; the nearest is `{nearest}`, of {}", KNOWN.join(", "))
}
