//! `[kafka.tls]`, `[kafka.sasl]` and `[kafka.librdkafka]`, and the same tables of a sink: how brokers are talked to.
//!
//! Owns their keys, and looks into the files that they name. What always holds: no secret is part of an error, a
//! warning or the report.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{TableName, short};
use super::read::{Context, Layer, Origin, Reader};
use super::report::{Scope, Setting, Source};
use super::resolve::Tables;
use super::value::{self, Choice};
use crate::client::Security;
use crate::client::properties::not_together;
use crate::client::security::{Identity, Mechanism, Sasl, Secret, Tls};
#[cfg(feature = "librdkafka")]
use crate::wire::tls::BROKERS;

/// A table of the file, and where it begins.
pub(super) type Found<'a> = Option<(usize, &'a DeTable<'a>)>;

/// What is wrong has been told.
pub(super) struct Told;

const WITHOUT: &str = "this program was built without the feature librdkafka, which brings TLS, SASL and librdkafka";

impl Choice for Mechanism {
    const ALL: &'static [(&'static str, Self)] =
        &[("PLAIN", Self::Plain), ("SCRAM-SHA-256", Self::ScramSha256), ("SCRAM-SHA-512", Self::ScramSha512)];
}

/// Reads the tables `tls` and `sasl` of `owner`: `kafka`, `sink.out`.
pub(super) fn read<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    owner: &str,
    tls_table: Found<'a>,
    sasl_table: Found<'a>,
) -> Result<Security, Told> {
    let security =
        Security { tls: tls(tables, context, owner, tls_table)?, sasl: sasl(tables, context, owner, sasl_table)? };
    if let (Some(Sasl { mechanism: Mechanism::Plain, .. }), None, Some((at, _))) =
        (&security.sasl, &security.tls, sasl_table)
    {
        let line = context.lines.line(at);
        context.warnings.push(format!(
            "line {line}: {owner}.sasl.mechanism is PLAIN without [{owner}.tls]: the password goes over the network as it is; use TLS, or SCRAM"
        ));
    }
    Ok(security)
}

/// Whether the table can be served; told if not.
pub(super) fn is_built_in(context: &mut Context<'_>, at: usize, name: &str) -> Result<(), Told> {
    if cfg!(feature = "librdkafka") {
        return Ok(());
    }
    let text = format!(
        "{WITHOUT}; build it with `cargo build --release` (it is in the default features), or leave this table out"
    );
    context.faults.add(at, name.to_owned(), text);
    Err(Told)
}

fn reader<'c, 'a>(
    tables: &Tables<'a>,
    context: &'c mut Context<'a>,
    owner: &str,
    name: &str,
    (at, table): (usize, &'a DeTable<'a>),
) -> Reader<'c, 'a> {
    let file = Layer { origin: Origin::File { inherited: None }, table };
    let layers = tables.default_layer(&["kafka", name]).into_iter().chain([file]).collect();
    Reader::new(context, TableName::new(&format!("{owner}.{name}")), at, layers)
}

fn tls<'a>(tables: &Tables<'a>, context: &mut Context<'a>, owner: &str, table: Found<'a>) -> Result<Option<Tls>, Told> {
    let Some(found) = table else { return Ok(None) };
    is_built_in(context, found.0, &format!("{owner}.tls"))?;
    let mut reader = reader(tables, context, owner, "tls", found);
    let ca = reader.text("ca", a_path).map(PathBuf::from);
    let certificate = reader.text("certificate", a_path).map(PathBuf::from);
    let key = reader.text("key", a_path).map(PathBuf::from);
    let key_password = secret(&mut reader, "key_password", "key_password_file");
    let verify_hostname = reader.flag("verify_hostname");
    for (one, other) in [("certificate", "key"), ("key", "certificate"), ("key_password", "key")] {
        if reader.own(one).is_some() && reader.own(other).is_none() {
            reader.wrong(one, format!("stands without {other}; write {other} = \"/etc/worker/client.pem\" too"));
        }
    }
    let good = reader.own("certificate").is_some() == reader.own("key").is_some()
        && (reader.own("ca").is_some() == ca.is_some());
    let identity = match (certificate, key, key_password) {
        (Some(certificate), Some(key), Ok(key_password)) => Some(Identity { certificate, key, key_password }),
        (_, _, Err(Told)) => {
            finish(reader, &format!("[{owner}.tls]"));
            return Err(Told);
        }
        (..) => None,
    };
    let asked = reader.own("certificate").is_some();
    let tls = verify_hostname.filter(|_| good && asked == identity.is_some()).map(|verify_hostname| Tls {
        ca,
        identity,
        verify_hostname,
    });
    let examined = tls.as_ref().map_or(Ok(()), |tls| examine(&mut reader, tls));
    if verify_hostname == Some(false) {
        let line = reader.context.lines.line(reader.place("verify_hostname"));
        reader.context.warnings.push(format!(
            "line {line}: {owner}.tls.verify_hostname is false: any broker with a certificate of a trusted authority is believed to be the one that was asked for"
        ));
    }
    finish(reader, &format!("[{owner}.tls]"));
    examined.and(tls.map(Some).ok_or(Told))
}

#[cfg(feature = "librdkafka")]
fn examine(reader: &mut Reader<'_, '_>, tls: &Tls) -> Result<(), Told> {
    let Some(files) = reader.context.files else { return Ok(()) };
    crate::wire::tls::examine(tls, &BROKERS, &|path| files.read(path).map(|file| file.bytes)).map_err(|wrong| {
        let key = match wrong.key {
            "key_password" if reader.own("key_password").is_none() => "key_password_file",
            key => key,
        };
        reader.wrong(key, wrong.text);
        Told
    })
}

#[cfg(not(feature = "librdkafka"))]
fn examine(_: &mut Reader<'_, '_>, _: &Tls) -> Result<(), Told> {
    Ok(())
}

fn sasl<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    owner: &str,
    table: Found<'a>,
) -> Result<Option<Sasl>, Told> {
    let Some(found) = table else { return Ok(None) };
    is_built_in(context, found.0, &format!("{owner}.sasl"))?;
    let mut reader = reader(tables, context, owner, "sasl", found);
    let mechanism = reader.choice::<Mechanism>("mechanism");
    let mechanism = reader.required("mechanism", mechanism, "\"SCRAM-SHA-512\"");
    let username = reader.text("username", user_name);
    let username = reader.required("username", username, "\"worker\"");
    let password = secret(&mut reader, "password", "password_file");
    let password = match password {
        Ok(Some(password)) => Some(password),
        Ok(None) => reader.required("password_file", None, "\"/etc/worker/kafka.password\""),
        Err(Told) => None,
    };
    finish(reader, &format!("[{owner}.sasl]"));
    match (mechanism, username, password) {
        (Some(mechanism), Some(username), Some(password)) => Ok(Some(Sasl { mechanism, username, password })),
        (..) => Err(Told),
    }
}

/// A secret that stands in the file, or in a file of its own, whose last newline is no part of it.
fn secret(reader: &mut Reader<'_, '_>, key: &'static str, key_of_file: &'static str) -> Result<Option<Secret>, Told> {
    let direct = reader.secret(key);
    let path = reader.text(key_of_file, a_path).map(PathBuf::from);
    match (reader.own(key), reader.own(key_of_file)) {
        (Some(_), Some(_)) => {
            reader.wrong(key_of_file, format!("stands beside {key}; leave one of them out"));
            Err(Told)
        }
        (Some(_), None) => {
            reader.leave_out(key_of_file);
            direct.map(Some).ok_or(Told)
        }
        (None, Some(_)) => {
            reader.leave_out(key);
            from_file(reader, key_of_file, &path.ok_or(Told)?, "password").map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// The secret in the file that `key` names; `what` it is called.
pub(super) fn from_file(
    reader: &mut Reader<'_, '_>,
    key: &'static str,
    path: &Path,
    what: &str,
) -> Result<Secret, Told> {
    let Some(files) = reader.context.files else { return Ok(Secret::new("")) };
    let shown = value::show_text(&path.display().to_string());
    let wrong = match files.read(path) {
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => "which does not exist; correct the path, or put the file there".to_owned(),
            std::io::ErrorKind::PermissionDenied => {
                "which may not be read; give the worker's user read permission for it".to_owned()
            }
            _ => format!("which can't be read: {error}; name a file with the {what} in it"),
        },
        Ok(file) => {
            if file.open_to_all {
                let line = reader.context.lines.line(reader.place(key));
                let table = reader.path().to_owned();
                reader.context.warnings.push(format!(
                    "line {line}: the file that {table}.{key} names ({}) may be read by every user of this machine; chmod o-r it",
                    path.display()
                ));
            }
            match Secret::of_file(&file.bytes, what) {
                Ok(secret) => return Ok(secret),
                Err(why) => format!("whose content {why}"),
            }
        }
    };
    reader.wrong(key, format!("is {shown}, {wrong}"));
    Err(Told)
}

fn finish(reader: Reader<'_, '_>, title: &str) {
    let (context, scope) = reader.finish(title.to_owned());
    context.report.push(scope);
}

pub(super) fn a_path(path: &str) -> Result<(), String> {
    if path.is_empty() || path.contains(char::is_control) {
        let path = value::show_text(path);
        return Err(format!("is {path}, which names no file; write a path such as \"/etc/worker/ca.pem\""));
    }
    Ok(())
}

fn user_name(name: &str) -> Result<(), String> {
    value::plain_name(name)
}

/// Reads the table `librdkafka` of `owner`: any property of librdkafka but those that the worker owns, each with why.
pub(super) fn properties<'a>(
    context: &mut Context<'a>,
    owner: &str,
    owned: fn(&str) -> Option<&'static str>,
    table: Found<'a>,
) -> Result<Vec<(String, String)>, Told> {
    let title = format!("{owner}.librdkafka");
    let Some((at, table)) = table else { return Ok(Vec::new()) };
    is_built_in(context, at, &title)?;
    let mut leaves = Vec::new();
    flatten(table, "", &mut leaves);
    let mut scope = Scope { title: format!("[{title}]"), settings: vec![], unset: vec![] };
    let mut list: Vec<(String, String)> = Vec::new();
    let mut good = true;
    let mut places: Vec<usize> = Vec::new();
    for (name, at, value) in leaves {
        let text = match property(&name, value.get_ref(), context.env, owned) {
            Ok(text) if list.iter().any(|(other, _)| *other == name) => {
                Err(format!("is written twice; keep one ({})", text.len()))
            }
            other => other,
        };
        match text.and_then(|text| is_known(&name, &text).map(|()| text)) {
            Ok(text) => {
                places.push(at);
                let line = context.lines.line(at);
                let source = Source::File { table: format!("[{title}]"), line };
                scope.settings.push(Setting { key: Cow::Owned(name.clone()), value: value::show_text(&text), source });
                list.push((name, text));
            }
            Err(why) => {
                context.faults.add(at, format!("{title}.{}", short(&name)), why);
                good = false;
            }
        }
    }
    context.report.push(scope);
    for (name, why) in not_together(&list) {
        let at = list.iter().zip(&places).find(|((other, _), _)| other == name).map_or(at, |(_, at)| *at);
        context.faults.add(at, format!("{title}.{}", short(name)), why);
        good = false;
    }
    if good { Ok(list) } else { Err(Told) }
}

/// The values of a table and of those inside of it: `a.b = 1` is the same as `"a.b" = 1`.
fn flatten<'a>(table: &'a DeTable<'a>, prefix: &str, into: &mut Vec<(String, usize, &'a Spanned<DeValue<'a>>)>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref().as_table() {
            Some(inner) => flatten(inner, &format!("{name}."), into),
            None => into.push((name, key.span().start, value)),
        }
    }
    into.sort_by_key(|(_, at, _)| *at);
}

/// Whether librdkafka knows the property, and takes the value.
#[cfg(feature = "librdkafka")]
fn is_known(name: &str, text: &str) -> Result<(), String> {
    let wrong = crate::client::librdkafka::check_properties(&[(name.to_owned(), text.to_owned())]).err();
    wrong.and_then(|wrong| wrong.into_iter().next()).map_or(Ok(()), |(_, why)| {
        Err(format!("is refused by librdkafka: {why}; its CONFIGURATION.md has all names and values"))
    })
}

#[cfg(not(feature = "librdkafka"))]
fn is_known(_: &str, _: &str) -> Result<(), String> {
    Ok(())
}

fn property(
    name: &str,
    value: &DeValue<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    owned: fn(&str) -> Option<&'static str>,
) -> Result<String, String> {
    // First: whoever writes a password here must not find it in the error.
    if let Some(why) = owned(name) {
        return Err(format!("is the worker's own: {why}; leave it out here"));
    }
    match value {
        DeValue::String(text) => value::expand(text, env).map(Cow::into_owned),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) => value::integer(value)
            .map(|n| n.to_string())
            .ok_or_else(|| format!("is {number}, which is too large; write a smaller number")),
        other => Err(value::wrong(other, "a text in quotes, a whole number, true or false")),
    }
}

#[cfg(test)]
mod tests;
