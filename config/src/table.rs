//! What every table of the configuration has in common: keys with documentation, default and accepted values.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;

/// One key of a table, with the value that it has.
pub(super) struct Key {
    pub name: &'static str,
    pub doc: &'static [&'static str],
    /// The accepted values in words.
    pub accepts: String,
    /// As TOML; none when the key is absent.
    pub value: Option<String>,
    pub in_range: bool,
}

/// A table that [`table!`] has declared.
pub(super) trait Table {
    const DOC: &'static [&'static str];
    fn keys(&self) -> Vec<Key>;
}

/// A type that a key can have.
pub(super) trait Setting {
    /// What may be written, in words.
    const FORM: &'static str;
    /// The value as TOML; none when there is nothing to write.
    fn to_toml(&self) -> Option<String>;
}

/// Declares a table: its struct, its defaults, and its documentation for people, from one source.
///
/// A key is a doc comment, a type, a default and, where not all values make sense, a range. Tables inside of the
/// table follow after `tables`, and are empty or absent by default.
macro_rules! table {
    (
        $(#[doc = $doc:literal])*
        pub struct $table:ident {
            $($(#[doc = $key_doc:literal])* pub $key:ident: $type:ty = $default:expr $(, in $range:expr)?;)*
        }
        $(tables { $($(#[doc = $inner_doc:literal])* pub $inner:ident: $inner_type:ty,)* })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $table {
            $($(#[doc = $key_doc])* pub $key: $type,)*
            $($($(#[doc = $inner_doc])* pub $inner: $inner_type,)*)?
        }

        impl Default for $table {
            fn default() -> Self {
                Self { $($key: $default,)* $($($inner: Default::default(),)*)? }
            }
        }

        impl $crate::table::Table for $table {
            const DOC: &'static [&'static str] = &[$($doc),*];

            fn keys(&self) -> Vec<$crate::table::Key> {
                vec![$({
                    let key = $crate::table::Key::new(stringify!($key), &[$($key_doc),*], &self.$key);
                    $(let key = key.within(&self.$key, &$range);)?
                    key
                }),*]
            }
        }
    };
}
pub(super) use table;

impl Key {
    pub fn new<T: Setting>(name: &'static str, doc: &'static [&'static str], value: &T) -> Key {
        Key { name, doc, accepts: T::FORM.to_owned(), value: value.to_toml(), in_range: true }
    }

    pub fn within<T: Setting + PartialOrd + Display>(self, value: &T, range: &impl RangeBounds<T>) -> Key {
        let accepts = match (range.start_bound(), range.end_bound()) {
            (Bound::Included(least), Bound::Included(most)) => format!("{}, {least} to {most}", T::FORM),
            (Bound::Included(least), _) => format!("{}, {least} or more", T::FORM),
            (_, Bound::Included(most)) => format!("{}, at most {most}", T::FORM),
            _ => T::FORM.to_owned(),
        };
        Key { accepts, in_range: range.contains(value), ..self }
    }
}

/// A path that stands for every entry of a list: `program[3]` and `program[0]` are the same.
pub(super) fn any_entry(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The candidate that `word` was most likely meant to be, by insertions, deletions, replacements and swaps of
/// neighbours: none when nothing is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let farthest = word.chars().count().div_ceil(2);
    let (distance, best) =
        candidates.map(|candidate| (strsim::osa_distance(word, candidate), candidate)).min()?;
    (distance <= farthest).then_some(best)
}

/// Text as a TOML string.
pub(super) fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

impl Setting for bool {
    const FORM: &'static str = "true or false";
    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl Setting for $integer {
            const FORM: &'static str = "an integer";
            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}
integers!(u16, u64, usize);

impl Setting for f64 {
    const FORM: &'static str = "a number";
    fn to_toml(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Setting for String {
    const FORM: &'static str = "a string";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for PathBuf {
    const FORM: &'static str = "a path";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self.display()))
    }
}

impl Setting for Vec<PathBuf> {
    const FORM: &'static str = "a list of paths";
    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(|path| quoted(path.display())).collect::<Vec<_>>().join(", ")))
    }
}

impl<T: Setting> Setting for Option<T> {
    const FORM: &'static str = T::FORM;
    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(T::to_toml)
    }
}
