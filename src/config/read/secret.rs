//! Reading what nobody is to see: passwords, headers with tokens.
//!
//! What always holds: neither an error nor the report shows any of a value, nor of what stands in its place by mistake.

use std::borrow::Cow;

use super::Reader;
use crate::client::security::Secret;
use crate::config::errors::short;
use crate::config::report::{Setting, Source};
use crate::config::value;

impl Reader<'_, '_> {
    /// A secret. Neither an error nor the report shows it; one that stands in a file that all may read is a warning.
    pub(in crate::config) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.known.push(key);
        let Some((origin, key_span, value)) = self.find(key) else {
            self.unset.push(key);
            return None;
        };
        let source = self.source(origin, key_span);
        let Some(text) = value.get_ref().as_str() else {
            self.wrong(key, "is no text; write it in quotes".to_owned());
            return None;
        };
        let env = self.context.env;
        let expanded = match value::expand(text, env) {
            Ok(expanded) => expanded.into_owned(),
            // Of a name it says which one is not set; anything else could be a part of the secret.
            Err(why) if why.starts_with("needs the environment variable") => {
                self.wrong(key, why);
                return None;
            }
            Err(_) => {
                self.wrong(key, "has a \"${\" that begins no ${NAME}; write ${NAME}, or $$ for a plain $".to_owned());
                return None;
            }
        };
        if let Err(why) = Secret::check(&expanded, "password") {
            self.wrong(key, why);
            return None;
        }
        if self.context.open_to_all && !text.contains("${") {
            let (line, path) = (self.context.lines.line(self.place(key)), &self.name.path);
            self.context.warnings.push(format!(
                "line {line}: {path}.{key} stands in a file that every user of this machine may read; chmod o-r it, or write {key}_file, or an environment variable: {key} = \"${{NAME}}\""
            ));
        }
        self.settings.push(Setting { key: Cow::Borrowed(key), value: "\"***\"".to_owned(), source });
        Some(Secret::new(expanded))
    }

    /// A table inside of this one, of texts that may be secrets: the report has their names alone, and no error their
    /// values. `check` sees name and value. Empty if it is absent.
    pub(in crate::config) fn secrets(
        &mut self,
        key: &'static str,
        check: fn(&str, &str) -> Result<(), String>,
    ) -> Option<Vec<(String, Secret)>> {
        let Some((at, table)) = self.inner(key) else {
            self.unset.push(key);
            return self.own(key).is_none().then(Vec::new);
        };
        let (mut found, mut good) = (Vec::new(), true);
        for (name, value) in table {
            let text = match value.get_ref().as_str() {
                None => Err("is no text; write it in quotes".to_owned()),
                Some(text) => value::expand(text, self.context.env).map_err(|why| match why {
                    // Of a name it says which one is not set; anything else could be a part of the secret.
                    why if why.starts_with("needs the environment variable") => why,
                    _ => "has a \"${\" that begins no ${NAME}; write ${NAME}, or $$ for a plain $".to_owned(),
                }),
            };
            let name_text: &str = name.get_ref();
            match text.and_then(|text| check(name_text, &text).map(|()| text.into_owned())) {
                Ok(text) => found.push((name_text.to_owned(), Secret::new(text))),
                Err(why) => {
                    good = false;
                    let path = format!("{key}.{}", short(name_text));
                    self.wrong_at(name.span().start, &path, why);
                }
            }
        }
        let names: Vec<String> =
            found.iter().map(|(name, _)| format!("{} = \"***\"", value::show_text(name))).collect();
        let line = self.context.lines.line(at);
        let source = Source::File { table: self.name.header.clone(), line };
        let value = format!("{{ {} }}", names.join(", "));
        self.settings.push(Setting { key: Cow::Borrowed(key), value, source });
        good.then_some(found)
    }
}
