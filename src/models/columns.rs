//! Plain-text tables with aligned columns.

/// Returns one line for each row, without trailing spaces. The columns listed in `numbers` are aligned at the right.
#[must_use]
pub fn aligned<const N: usize>(rows: &[[String; N]], numbers: &[usize]) -> Vec<String> {
    let length = |cell: &String| cell.chars().count();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let padding = " ".repeat(width - length(cell));
            if numbers.contains(&column) { padding + cell } else { cell.clone() + &padding }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_are_right_aligned() {
        let rows = [["NAME", "SIZE", "X"], ["ä", "5", ""], ["longer", "12345", "y"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, &[1]), ["NAME     SIZE  X", "ä           5", "longer  12345  y"]);
    }
}
