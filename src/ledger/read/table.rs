//! Rows of usage as a table with totals, for people.

use super::report::UsageRow;

/// Returns the rows that are grouped by these columns as a table, with a line of totals.
pub fn usage_table(columns: &[&str], rows: &[UsageRow]) -> String {
    let counts = ["requests", "refused", "prompt", "cached", "completion", "slot s", "cost"];
    let mut lines: Vec<Vec<String>> = vec![columns.iter().chain(&counts).map(|&name| name.to_owned()).collect()];
    lines.extend(rows.iter().map(cells));
    let mut total = vec![String::new(); columns.len()];
    if let Some(first) = total.first_mut() {
        "total".clone_into(first);
    }
    total.extend(count_cells(&sum(rows)));
    lines.push(total);
    let widths: Vec<usize> = (0..columns.len() + counts.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < columns.len() {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &UsageRow) -> Vec<String> {
    let names = [&row.key, &row.person, &row.model].into_iter().flatten();
    let names = names.map(|name| name.clone().unwrap_or_else(|| "-".to_owned()));
    // A day needs no time.
    let start = row.start.iter().map(|start| start.strip_suffix("T00:00:00Z").unwrap_or(start).to_owned());
    start.chain(names).chain(count_cells(row)).collect()
}

fn count_cells(row: &UsageRow) -> [String; 7] {
    [
        row.requests.to_string(),
        row.refused.to_string(),
        row.prompt_tokens.to_string(),
        row.cached_tokens.to_string(),
        row.completion_tokens.to_string(),
        format!("{:.1}", row.slot_seconds),
        format!("{:.4}", row.cost),
    ]
}

fn sum(rows: &[UsageRow]) -> UsageRow {
    let mut total = UsageRow::default();
    for row in rows {
        total.requests += row.requests;
        total.refused += row.refused;
        total.prompt_tokens += row.prompt_tokens;
        total.cached_tokens += row.cached_tokens;
        total.completion_tokens += row.completion_tokens;
        total.slot_seconds += row.slot_seconds;
        total.first_byte_seconds += row.first_byte_seconds;
        total.cost += row.cost;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_ends_with_totals() {
        let row = |key: Option<&str>, requests| UsageRow {
            start: Some("2027-01-31T00:00:00Z".to_owned()),
            key: Some(key.map(str::to_owned)),
            requests,
            cost: 0.25,
            ..UsageRow::default()
        };
        let table = usage_table(&["start", "key"], &[row(Some("team"), 9), row(None, 1)]);
        let expected = "start       key   requests  refused  prompt  cached  completion  slot s    cost\n\
                        2027-01-31  team         9        0       0       0           0     0.0  0.2500\n\
                        2027-01-31  -            1        0       0       0           0     0.0  0.2500\n\
                        total                   10        0       0       0           0     0.0  0.5000\n";
        assert_eq!(table, expected);
    }
}
