//! keyctl's edits, as functions on a parsed key file. Comments, bad lines and the order of lines stay as they are.
//!
//! Does not touch the disk: [`update`](super::write::update) runs an edit between a locked read and an atomic write.
//! The time is an argument.

use jiff::Timestamp;

use super::bounds::MAX_LINE;
use super::changes::KeyChange;
use super::error::KeyFileError;
use super::key::Key;
use super::parse::{KeyEntry, KeyFile, Meaning};
use super::secret::Stored;

/// Why an edit was refused.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// A new key was to get a name that exists.
    #[error("a key named '{name}' exists already")]
    NameTaken {
        /// The requested name.
        name: String,
    },
    /// No line has this name.
    #[error("there is no key named '{name}'")]
    NoSuchKey {
        /// The requested name.
        name: String,
    },
    /// The new secret would have expired already.
    #[error("the expiration {end} is in the past")]
    EndsInThePast {
        /// When the key would expire.
        end: Timestamp,
    },
    /// The line of the key would be longer than [`MAX_LINE`], so that no gateway would read it.
    #[error("the line of the key '{name}' would be longer than {MAX_LINE} bytes")]
    LineTooLong {
        /// The name of the key.
        name: String,
    },
    /// The operating system returned no random bytes.
    #[error("no random bytes for a secret: {0}")]
    Random(#[from] getrandom::Error),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] KeyFileError),
}

impl EditError {
    /// Returns one sentence on what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NameTaken { name } => {
                format!("for a new secret under this name: keyctl rotate --name {name}")
            }
            Self::NoSuchKey { .. } => "keyctl list shows the names".into(),
            Self::EndsInThePast { .. } => {
                "give a later one with --expires, such as --expires 30d or --expires never".into()
            }
            Self::LineTooLong { .. } => "name fewer models".into(),
            Self::Random(_) => "check that the system has a working random device".into(),
            Self::File(error) => error.hint(),
        }
    }
}

/// Appends a new key.
///
/// # Errors
/// When the name is taken, or when the key has expired already.
pub fn add(file: &mut KeyFile, key: Key, secret: Stored, now: Timestamp) -> Result<(), EditError> {
    if file.entries().any(|(_, entry)| entry.key.id == key.id) {
        return Err(EditError::NameTaken { name: key.id });
    }
    refuse_past_end(&key, now)?;
    let entry = KeyEntry { key, secret };
    refuse_long_line(&entry)?;
    file.insert(usize::MAX, entry);
    Ok(())
}

/// Changes members of a key on each of its lines; when it ends, only on the line that ends last, so that the secrets that
/// end with a rotation do. Returns the key of that line.
///
/// # Errors
/// When there is no such key, or when a line would be too long. An end in the past is allowed: it ends the key.
pub fn change(file: &mut KeyFile, name: &str, change: &KeyChange) -> Result<Key, EditError> {
    let mut changed: Vec<(usize, KeyEntry)> = (file.entries())
        .filter(|(_, entry)| entry.key.id == name)
        .map(|(number, entry)| (number - 1, entry.clone()))
        .collect();
    let current = changed.iter_mut().max_by_key(|(_, entry)| entry.key.expires.unwrap_or(Timestamp::MAX));
    let Some((current_index, current)) = current else {
        return Err(EditError::NoSuchKey { name: name.into() });
    };
    current.key.expires = change.expires().unwrap_or(current.key.expires);
    let current_index = *current_index;
    for (_, entry) in &mut changed {
        change.apply_limits(&mut entry.key);
        refuse_long_line(entry)?;
    }
    let key = changed.iter().find(|(index, _)| *index == current_index).map(|(_, entry)| entry.key.clone());
    for (index, entry) in changed {
        file.replace(index, entry);
    }
    key.ok_or_else(|| EditError::NoSuchKey { name: name.into() })
}

/// Removes every line of this name. Returns how many there were.
///
/// # Errors
/// When there is none.
pub fn remove(file: &mut KeyFile, name: &str) -> Result<usize, EditError> {
    match remove_where(file, |key| key.id == name).len() {
        0 => Err(EditError::NoSuchKey { name: name.into() }),
        removed => Ok(removed),
    }
}

/// Removes every expired line. Returns their names.
pub fn prune(file: &mut KeyFile, now: Timestamp) -> Vec<String> {
    remove_where(file, |key| key.has_expired(now))
}

/// The arguments of [`rotate`], except for the name.
#[derive(Debug)]
pub struct Rotation {
    /// The new secret.
    pub secret: Stored,
    /// When the old secrets expire. Now or earlier means that their lines are removed.
    pub old_ends: Timestamp,
    /// When the new secret expires (`Some(None)`: never). `None` means when the key would have expired anyway.
    pub expires: Option<Option<Timestamp>>,
}

/// Gives a key a new secret, with the scopes and limits of its line that expires last. Returns the key of the new line.
///
/// The old secrets expire as the rotation says, or earlier if they would have anyway.
///
/// # Errors
/// When there is no such key, or when the new secret would have expired already.
pub fn rotate(file: &mut KeyFile, name: &str, rotation: Rotation, now: Timestamp) -> Result<Key, EditError> {
    let old: Vec<(usize, Key)> = (file.entries())
        .filter(|(_, entry)| entry.key.id == name)
        .map(|(number, entry)| (number - 1, entry.key.clone()))
        .collect();
    let (Some((_, template)), Some((last, _))) =
        (old.iter().max_by_key(|(_, key)| key.expires.unwrap_or(Timestamp::MAX)), old.last())
    else {
        return Err(EditError::NoSuchKey { name: name.into() });
    };
    // Of several lines under a name, the one that expires last is the current one.
    let mut key = template.clone();
    key.expires = rotation.expires.unwrap_or(key.expires);
    refuse_past_end(&key, now)?;
    let entry = KeyEntry { key: key.clone(), secret: rotation.secret };
    refuse_long_line(&entry)?;
    file.insert(last + 1, entry);
    // From the end, so that removing a line does not move those that are still to come.
    for (index, old_key) in old.iter().rev() {
        if rotation.old_ends <= now {
            file.lines.remove(*index);
        } else if old_key.expires.is_none_or(|end| rotation.old_ends < end) {
            file.set_expiry(*index, rotation.old_ends);
        }
    }
    Ok(key)
}

fn refuse_past_end(key: &Key, now: Timestamp) -> Result<(), EditError> {
    match key.expires {
        Some(end) if end <= now => Err(EditError::EndsInThePast { end }),
        _ => Ok(()),
    }
}

fn refuse_long_line(entry: &KeyEntry) -> Result<(), EditError> {
    match entry.render().len() > MAX_LINE {
        true => Err(EditError::LineTooLong { name: entry.key.id.clone() }),
        false => Ok(()),
    }
}

/// Removes every line whose key matches. Returns their names.
fn remove_where(file: &mut KeyFile, is_match: impl Fn(&Key) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    file.lines.retain(|line| match &line.meaning {
        Meaning::Entry(entry) if is_match(&entry.key) => {
            names.push(entry.key.id.clone());
            false
        }
        _ => true,
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::parse::parse;

    const NEW: &str = "new-secret-0123456789";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn rotation(old_ends: i64) -> Rotation {
        Rotation { secret: Stored::Plain(NEW.into()), old_ends: at(old_ends), expires: None }
    }

    #[test]
    fn a_new_key_is_appended_and_nothing_else_changes() {
        let mut file = parse("# ours\r\na:0123456789abcdef:5\r\nbad line\r\n\r\n# last");
        add(&mut file, Key::named("b"), Stored::Plain(NEW.into()), at(0)).unwrap();
        let want = format!("# ours\r\na:0123456789abcdef:5\r\nbad line\r\n\r\n# last\r\nb:{NEW}\r\n");
        assert_eq!(file.render(), want);
    }

    #[test]
    fn a_name_that_exists_and_an_end_in_the_past_are_refused() {
        let mut file = parse("a:0123456789abcdef\n");
        let secret = || Stored::Plain(NEW.into());
        assert!(matches!(add(&mut file, Key::named("a"), secret(), at(0)), Err(EditError::NameTaken { .. })));
        let ended = Key { expires: Some(at(5)), ..Key::named("b") };
        assert!(matches!(add(&mut file, ended, secret(), at(5)), Err(EditError::EndsInThePast { .. })));
        assert_eq!(file.render(), "a:0123456789abcdef\n");
    }

    fn changed(members: &[(&str, Option<&str>)]) -> KeyChange {
        let mut change = KeyChange::default();
        members.iter().for_each(|(name, value)| change.set(name, *value, at(0)).unwrap());
        change
    }

    #[test]
    fn a_change_reaches_each_line_of_a_key_and_the_end_only_the_current_one() {
        let mut file = parse(
            "# a\na:0123456789abcdef:5:1970-01-01T01:00:00Z models=m\na:0123456789abcdefg:5 models=m\nb:0123456789abcdefh\n",
        );
        let wanted = changed(&[("rate_limit", Some("9")), ("models", None), ("expires", Some("2h"))]);
        let key = change(&mut file, "a", &wanted).unwrap();
        assert_eq!((key.expires, key.models), (Some(at(7200)), None));
        let want = "# a\na:0123456789abcdef:9:1970-01-01T01:00:00Z\na:0123456789abcdefg:9:1970-01-01T02:00:00Z\nb:0123456789abcdefh\n";
        assert_eq!(file.render(), want);
        assert!(matches!(change(&mut file, "c", &wanted), Err(EditError::NoSuchKey { .. })));
    }

    #[test]
    fn a_line_that_no_gateway_would_read_is_refused() {
        let mut file = parse("a:0123456789abcdef\n");
        let models = "m".repeat(MAX_LINE);
        let long = changed(&[("models", Some(&models))]);
        let added = add(&mut file, long.new_key("b"), Stored::Plain(NEW.into()), at(0));
        assert!(matches!(added, Err(EditError::LineTooLong { .. })));
        assert!(matches!(change(&mut file, "a", &long), Err(EditError::LineTooLong { .. })));
        assert_eq!(file.render(), "a:0123456789abcdef\n");
    }

    #[test]
    fn remove_deletes_every_line_of_the_name_and_no_other() {
        let mut file = parse("a:0123456789abcdef\n# a\naa:0123456789abcdefg\na:0123456789abcdefh\n");
        assert_eq!(remove(&mut file, "a").unwrap(), 2);
        assert_eq!(file.render(), "# a\naa:0123456789abcdefg\n");
        assert!(matches!(remove(&mut file, "a"), Err(EditError::NoSuchKey { .. })));
    }

    #[test]
    fn prune_removes_only_expired_lines() {
        let mut file = parse("a:0123456789abcdef::1970-01-01\nb:0123456789abcdefg::1970-01-03\nc:0123456789abcdefh\n");
        assert_eq!(prune(&mut file, at(86_400)), ["a"]);
        assert_eq!(file.entries().count(), 2);
        assert!(prune(&mut file, at(86_400)).is_empty());
    }

    #[test]
    fn rotation_without_overlap_replaces_the_line_in_its_place() {
        let mut file = parse("# one\na:0123456789abcdef:5 models=m max_concurrent=2\nz:0123456789abcdefz\n");
        rotate(&mut file, "a", rotation(0), at(0)).unwrap();
        let want = format!("# one\na:{NEW}:5 models=m max_concurrent=2\nz:0123456789abcdefz\n");
        assert_eq!(file.render(), want);
    }

    #[test]
    fn rotation_with_overlap_keeps_the_old_secret_until_the_overlap_ends() {
        let mut file = parse("a:0123456789abcdef:5 scope=admin\nz:0123456789abcdefz");
        rotate(&mut file, "a", rotation(3600), at(0)).unwrap();
        let want = format!(
            "a:0123456789abcdef:5:1970-01-01T01:00:00Z scope=admin\na:{NEW}:5 scope=admin\nz:0123456789abcdefz"
        );
        assert_eq!(file.render(), want);
    }

    #[test]
    fn an_overlap_never_extends_an_expiry() {
        let mut file = parse("a:0123456789abcdef::1970-01-01T00:30:00Z\na:0123456789abcdefg::1970-01-02\n");
        let key = rotate(&mut file, "a", rotation(3600), at(0)).unwrap();
        assert_eq!(key.expires, Some(at(86_400)), "the new line copies the one that expires last");
        let ends: Vec<_> = file.entries().map(|(_, entry)| entry.key.expires.unwrap().as_second()).collect();
        assert_eq!(ends, [1800, 3600, 86_400]);
    }

    #[test]
    fn an_expired_key_is_rotated_only_with_a_new_end() {
        let text = "a:0123456789abcdef::1970-01-01T00:30:00Z\n";
        let mut file = parse(text);
        assert!(matches!(rotate(&mut file, "a", rotation(7200), at(7200)), Err(EditError::EndsInThePast { .. })));
        assert_eq!(file.render(), text);
        let never = Rotation { expires: Some(None), ..rotation(7200) };
        assert_eq!(rotate(&mut file, "a", never, at(7200)).unwrap().expires, None);
        assert_eq!(file.render(), format!("a:{NEW}\n"));
    }
}
