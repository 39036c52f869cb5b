//! Reads llama-server's answer with a vector for each token, while it comes: `[{"index":0,"embedding":[[..],[..]]}, ..]`.
//!
//! The answer for a long text is larger than all that is kept of it, so each vector is handed on as soon as it is whole, and
//! no more than one is held. llama-server gives vectors of single tokens as they are, and in no other form.

use memchr::memchr2;

use super::super::bounds::{LONGEST_NUMBER, MOST_ROW_NUMBERS};
use super::worker_answer::WorkerVectorsError;

/// The vector of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenRow<'a> {
    /// The place of its input, from 0.
    pub input: usize,
    /// Its numbers; all are finite.
    pub numbers: &'a [f32],
}

/// Reads an answer piece by piece.
#[derive(Debug)]
pub struct TokenRows {
    place: Place,
    /// How many inputs were begun.
    begun: usize,
    /// Whether the input that was begun last has a list of vectors.
    has_list: bool,
    /// Numbers of the vector that is read.
    row: Vec<f32>,
    /// Numbers of each vector; 0 before the first one is whole.
    width: usize,
    /// The name of a member, or a number, as far as it came.
    word: Vec<u8>,
    /// The last name of a member.
    name: Vec<u8>,
    /// Whether something must come before the next comma or end.
    is_open: bool,
}

/// Where in the answer the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    List,
    Object,
    Name,
    Colon,
    Value,
    Rows,
    Row,
    After,
}

impl TokenRows {
    /// Creates a reader of an answer.
    pub fn new() -> Self {
        Self {
            place: Place::Before,
            begun: 0,
            has_list: false,
            row: Vec::new(),
            width: 0,
            word: Vec::new(),
            name: Vec::new(),
            is_open: false,
        }
    }

    /// Reads the next piece, and calls `on_row` for each vector that is whole.
    ///
    /// # Errors
    /// The answer has another shape, a number that is not finite, or vectors of different lengths.
    pub fn feed(&mut self, piece: &[u8], mut on_row: impl FnMut(TokenRow<'_>)) -> Result<(), WorkerVectorsError> {
        let mut rest = piece;
        while let Some((byte, after)) = rest.split_first() {
            // Nearly all of an answer are numbers that come whole; they are read where they stand.
            let is_number = self.place == Place::Row && self.word.is_empty();
            let end = if is_number { memchr2(b',', b']', rest).filter(|end| *end <= LONGEST_NUMBER) } else { None };
            rest = match end {
                Some(end) => {
                    self.add_number(&rest[..end])?;
                    self.go_on_after_number(rest[end], &mut on_row)?;
                    &rest[end + 1..]
                }
                None => {
                    self.read(*byte, &mut on_row)?;
                    after
                }
            };
        }
        Ok(())
    }

    /// Checks that the answer has ended, and has a list of vectors for each of `inputs`.
    ///
    /// # Errors
    /// It has not.
    pub fn finish(self, inputs: usize) -> Result<(), WorkerVectorsError> {
        match self.place {
            Place::After if self.begun == inputs => Ok(()),
            Place::After => Err(WorkerVectorsError::Count { has: self.begun, inputs }),
            _ => Err(unreadable("it breaks off")),
        }
    }

    fn read(&mut self, byte: u8, on_row: &mut impl FnMut(TokenRow<'_>)) -> Result<(), WorkerVectorsError> {
        match (self.place, byte) {
            (Place::Row, b'-' | b'+' | b'.' | b'0'..=b'9' | b'e' | b'E') => return self.extend(byte),
            (Place::Name, byte) if byte != b'"' => return self.extend(byte),
            (Place::Value, b'0'..=b'9') => return self.extend(byte),
            // After a number it is kept, so that what follows belongs to another one.
            (_, b' ' | b'\n' | b'\r' | b'\t') if self.word.is_empty() => {}
            (_, b' ' | b'\n' | b'\r' | b'\t') => return self.extend(b' '),
            (Place::Before, b'[') => self.go(Place::List, false),
            (Place::List, b'{') => {
                self.begun += 1;
                self.has_list = false;
                self.go(Place::Object, false);
            }
            (Place::List, b',') if !self.is_open && self.begun > 0 => self.go(Place::List, true),
            (Place::List, b']') if !self.is_open => self.go(Place::After, false),
            (Place::Object, b'"') => self.go(Place::Name, false),
            (Place::Object, b',') if !self.is_open => self.go(Place::Object, true),
            (Place::Object, b'}') if !self.is_open && self.has_list => self.go(Place::List, false),
            (Place::Name, b'"') => {
                self.name.clear();
                self.name.append(&mut self.word);
                self.go(Place::Colon, false);
            }
            (Place::Colon, b':') => self.go(Place::Value, false),
            (Place::Value, b'[') if self.name == b"embedding" && !self.has_list => {
                self.has_list = true;
                self.go(Place::Rows, false);
            }
            (Place::Value, b',' | b'}') if self.name == b"index" => {
                self.check_index()?;
                self.go(Place::Object, byte == b',');
                if byte == b'}' {
                    return self.read(byte, on_row);
                }
            }
            (Place::Rows, b'[') => self.go(Place::Row, true),
            (Place::Rows, b',') if !self.is_open => self.go(Place::Rows, true),
            (Place::Rows, b']') if !self.is_open => self.go(Place::Object, false),
            (Place::Row, b',' | b']') => {
                let word = std::mem::take(&mut self.word);
                self.add_number(&word)?;
                self.go_on_after_number(byte, on_row)?;
            }
            _ => return Err(unreadable("it is no list of vectors of tokens")),
        }
        Ok(())
    }

    fn go(&mut self, place: Place, is_open: bool) {
        (self.place, self.is_open) = (place, is_open);
    }

    /// Adds a byte to the name or the number that is read.
    fn extend(&mut self, byte: u8) -> Result<(), WorkerVectorsError> {
        if self.word.len() == LONGEST_NUMBER {
            return Err(unreadable("a name or a number of it is too long"));
        }
        self.word.push(byte);
        Ok(())
    }

    fn check_index(&mut self) -> Result<(), WorkerVectorsError> {
        let index = std::str::from_utf8(&self.word).ok().and_then(|word| word.trim_end().parse::<usize>().ok());
        self.word.clear();
        match index {
            Some(index) if index + 1 == self.begun => Ok(()),
            Some(index) => Err(WorkerVectorsError::Index(index)),
            None => Err(unreadable("an index of it is no number")),
        }
    }

    /// Adds a number to the vector that is read.
    fn add_number(&mut self, word: &[u8]) -> Result<(), WorkerVectorsError> {
        let number = std::str::from_utf8(word).ok().and_then(|word| word.trim().parse::<f32>().ok());
        match number.filter(|number| number.is_finite()) {
            Some(_) if self.row.len() == MOST_ROW_NUMBERS => Err(unreadable("a vector of it is too long")),
            Some(number) => {
                self.row.push(number);
                Ok(())
            }
            None => Err(unreadable("a number of an embedding is none, or not finite")),
        }
    }

    /// Ends the vector, if this byte does.
    fn go_on_after_number(
        &mut self,
        byte: u8,
        on_row: &mut impl FnMut(TokenRow<'_>),
    ) -> Result<(), WorkerVectorsError> {
        if byte == b']' {
            self.end_row(on_row)?;
            self.go(Place::Rows, false);
        }
        Ok(())
    }

    fn end_row(&mut self, on_row: &mut impl FnMut(TokenRow<'_>)) -> Result<(), WorkerVectorsError> {
        let (at, has) = (self.begun - 1, self.row.len());
        if self.width != 0 && self.width != has {
            return Err(WorkerVectorsError::Width { at, has, first: self.width });
        }
        self.width = has;
        on_row(TokenRow { input: at, numbers: &self.row });
        self.row.clear();
        Ok(())
    }
}

impl Default for TokenRows {
    fn default() -> Self {
        Self::new()
    }
}

fn unreadable(what: &str) -> WorkerVectorsError {
    WorkerVectorsError::Unreadable(what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    type Rows = Vec<(usize, Vec<f32>)>;

    /// Returns the vectors of an answer that comes in these pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, inputs: usize) -> Result<Rows, WorkerVectorsError> {
        let (mut reader, mut rows) = (TokenRows::new(), Vec::new());
        for piece in pieces {
            reader.feed(piece, |row| rows.push((row.input, row.numbers.to_vec())))?;
        }
        reader.finish(inputs).map(|()| rows)
    }

    #[test]
    fn vectors_are_handed_on_wherever_the_answer_is_cut() {
        let answer = r#"[{"index":0,"embedding":[[0.25,-1e-3],[3,4.5]]}, {"index":1,"embedding":[[5,6E2]]}]"#;
        let expected = vec![(0, vec![0.25, -0.001]), (0, vec![3.0, 4.5]), (1, vec![5.0, 600.0])];
        for cut in 0..=answer.len() {
            let (one, other) = answer.as_bytes().split_at(cut);
            assert_eq!(read([one, other], 2), Ok(expected.clone()), "cut at {cut}");
        }
        assert_eq!(read(answer.as_bytes().chunks(1), 2), Ok(expected));
        assert_eq!(read([&b"[]"[..]], 0), Ok(Vec::new()));
        assert_eq!(read([&b" [ { \"embedding\" : [ [ 1 , 2 ] ] } ] \n"[..]], 1), Ok(vec![(0, vec![1.0, 2.0])]));
        assert_eq!(read([&b"[{\"embedding\":[[1]],\"index\":0}]"[..]], 1), Ok(vec![(0, vec![1.0])]));
        assert_eq!(read([&b"[{\"index\":0,\"embedding\":[]}]"[..]], 1), Ok(Vec::new()));
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error() {
        for answer in [
            "",
            "[",
            "{}",
            "[]]",
            "[,]",
            "[{}]",
            "[{\"index\":0}]",
            "[{\"index\":0,\"embedding\":[1,2]}]",
            "[{\"index\":0,\"embedding\":[[1,2]}]",
            "[{\"index\":0,\"embedding\":[[1,,2]]}]",
            "[{\"index\":0,\"embedding\":[[]]}]",
            "[{\"index\":0,\"embedding\":[[1],]}]",
            "[{\"index\":0,\"embedding\":[[null]]}]",
            "[{\"index\":0,\"embedding\":[[1e99]]}]",
            "[{\"index\":0,\"embedding\":[[1]],}]",
            "[{\"index\":0,\"embedding\":[[1]]},]",
            "[{\"index\":0,\"embedding\":[[1]],\"embedding\":[[1]]}]",
            "[{\"index\":0,\"embedding\":[[1 2]]}]",
            "[{\"index\":,\"embedding\":[[1]]}]",
            "[{\"index\":0 0,\"embedding\":[[1]]}]",
            "[{\"text\":\"a\",\"embedding\":[[1]]}]",
            "{\"data\":[{\"embedding\":[1]}]}",
        ] {
            let error = read([answer.as_bytes()], 1);
            assert!(matches!(error, Err(WorkerVectorsError::Unreadable(_))), "{answer}: {error:?}");
        }
        let long = format!("[{{\"index\":0,\"embedding\":[[{}]]}}]", "1".repeat(LONGEST_NUMBER + 1));
        assert!(matches!(read([long.as_bytes()], 1), Err(WorkerVectorsError::Unreadable(_))));
    }

    #[test]
    fn an_answer_about_other_inputs_is_an_error() {
        let one = b"[{\"index\":0,\"embedding\":[[1,2]]}]";
        assert_eq!(read([&one[..]], 2), Err(WorkerVectorsError::Count { has: 1, inputs: 2 }));
        let later = b"[{\"index\":1,\"embedding\":[[1,2]]}]";
        assert_eq!(read([&later[..]], 1), Err(WorkerVectorsError::Index(1)));
        let uneven = b"[{\"index\":0,\"embedding\":[[1,2],[3]]}]";
        assert_eq!(read([&uneven[..]], 1), Err(WorkerVectorsError::Width { at: 0, has: 1, first: 2 }));
    }

    proptest! {
        #[test]
        fn every_answer_is_read_as_it_was_written(
            width in 1_usize..5,
            counts in prop::collection::vec(0_usize..4, 0..4),
            seed in prop::collection::vec(-1.0e6_f32..1.0e6, 7),
            piece in 1_usize..9,
        ) {
            let row = |at: usize| -> Vec<f32> { (0..width).map(|number| seed[(at * 3 + number) % seed.len()]).collect() };
            let rows = |count: usize| (0..count).map(row).collect::<Vec<_>>();
            let entries: Vec<_> =
                counts.iter().enumerate().map(|(index, count)| json!({"index": index, "embedding": rows(*count)})).collect();
            let text = serde_json::to_vec(&entries).unwrap();
            let expected: Rows = counts
                .iter()
                .enumerate()
                .flat_map(|(input, count)| rows(*count).into_iter().map(move |row| (input, row)))
                .collect();
            prop_assert_eq!(read(text.chunks(piece), counts.len()), Ok(expected));
        }

        #[test]
        fn bytes_that_mean_nothing_are_never_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read([&bytes[..]], 1);
        }
    }
}
