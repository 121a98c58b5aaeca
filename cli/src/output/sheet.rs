//! A list of rows that fits its terminal: a row is one line. Where there is no room, the columns that matter least
//! are left out, empty ones first, so that names and states stay whole. Into a pipe nothing is left out or cut off.

use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Row, Table};

use super::Terminal;

/// Spaces between columns.
const GAP: u16 = 2;

/// How much a column matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// It stays, whole: an id that is cut off cannot be copied, and a state not be read.
    Whole,
    /// It stays, and is cut off only when nothing else can go.
    Name,
    /// It goes when there is no room; lower numbers first.
    Optional(u8),
    /// It takes the room that is left. Others go before it gets less than this; it goes itself when a word would
    /// not fit.
    Text(u16),
}

/// With less room than this a text goes.
const LEAST: u16 = 8;

/// A column's title and rank.
pub(super) type Column = (&'static str, Rank);

/// Draws a list; what cells hold is safe for a terminal already.
pub(super) fn draw(columns: &[Column], mut rows: Vec<Vec<Cell>>, terminal: Terminal) -> String {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    if let Some(width) = terminal.width {
        let widths = widths(columns, &rows);
        while let Some(out) = too_much(columns, &rows, &widths, &kept, width) {
            kept.retain(|column| *column != out);
        }
        cut_text(columns, &mut rows, &widths, &kept, width);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let titles = kept
        .iter()
        .map(|column| Cell::new(columns[*column].0).add_attribute(Attribute::Bold));
    table.set_header(one_line(titles.collect()));
    for row in rows {
        let cells = row.into_iter().enumerate();
        let cells = cells.filter_map(|(column, cell)| kept.contains(&column).then_some(cell));
        table.add_row(one_line(cells.collect()));
    }
    if terminal.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = terminal.width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    for (column, drawn) in kept.iter().zip(table.column_iter_mut()) {
        drawn.set_padding((0, GAP));
        if columns[*column].1 == Rank::Whole {
            drawn.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

fn one_line(cells: Vec<Cell>) -> Row {
    let mut row = Row::from(cells);
    row.max_height(1);
    row
}

/// Each column's width with its title.
fn widths(columns: &[Column], rows: &[Vec<Cell>]) -> Vec<u16> {
    let mut table = Table::new();
    table.set_header(columns.iter().map(|(title, _)| *title));
    table.add_rows(rows.iter().cloned());
    table.column_max_content_widths()
}

/// The columns that a row takes, text shortened to `of_text` of its wish.
fn need(columns: &[Column], widths: &[u16], kept: &[usize], of_text: impl Fn(u16) -> u16) -> u16 {
    let each = kept.iter().map(|column| match columns[*column].1 {
        Rank::Text(wish) => widths[*column].min(of_text(wish)),
        Rank::Whole | Rank::Name | Rank::Optional(_) => widths[*column],
    });
    each.fold(0, |sum: u16, width| sum.saturating_add(width).saturating_add(GAP))
}

/// The column to leave out next, if those that are kept do not fit.
fn too_much(
    columns: &[Column],
    rows: &[Vec<Cell>],
    widths: &[u16],
    kept: &[usize],
    width: u16,
) -> Option<usize> {
    if need(columns, widths, kept, |wish| wish) <= width {
        return None;
    }
    let is_empty = |column: usize| rows.iter().all(|row| row[column].content() == "-");
    let optional = |column: usize| match columns[column].1 {
        Rank::Optional(rank) => Some((!is_empty(column), rank, column)),
        Rank::Text(_) if is_empty(column) => Some((false, 0, column)),
        Rank::Whole | Rank::Name | Rank::Text(_) => None,
    };
    if let Some((_, _, column)) = kept.iter().filter_map(|column| optional(*column)).min() {
        return Some(column);
    }
    let is_text = |column: &usize| matches!(columns[*column].1, Rank::Text(_));
    match need(columns, widths, kept, |_| LEAST) > width {
        true => kept.iter().copied().find(is_text),
        false => None,
    }
}

/// Cuts text off at the room that the other columns leave; the table itself would cut after a word.
fn cut_text(columns: &[Column], rows: &mut [Vec<Cell>], widths: &[u16], kept: &[usize], width: u16) {
    let room = usize::from(width.saturating_sub(need(columns, widths, kept, |_| 0)));
    for column in kept.iter().copied() {
        if !matches!(columns[column].1, Rank::Text(_)) {
            continue;
        }
        for cell in rows.iter_mut().map(|row| &mut row[column]) {
            let text = cell.content();
            if text.chars().count() > room {
                let start: String = text.chars().take(room.saturating_sub(1)).collect();
                *cell = Cell::new(format!("{start}…"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [
        ("NAME", Rank::Name),
        ("STATE", Rank::Whole),
        ("EMPTY", Rank::Optional(9)),
        ("SIZE", Rank::Optional(1)),
        ("NOTE", Rank::Text(16)),
    ];

    fn drawn(width: u16) -> Vec<String> {
        let row = [
            "a-long-name",
            "needs attention",
            "-",
            "12 GiB",
            "what happened last of all",
        ];
        let terminal = Terminal {
            width: Some(width),
            colour: false,
            spinner: false,
        };
        let text = draw(&COLUMNS, vec![row.map(Cell::new).into()], terminal);
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn titles(width: u16) -> String {
        drawn(width)[0].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_matters_least_goes_first_and_empty_columns_before_it() {
        assert_eq!(titles(80), "NAME STATE EMPTY SIZE NOTE");
        assert_eq!(titles(60), "NAME STATE SIZE NOTE");
        assert_eq!(titles(50), "NAME STATE NOTE");
        assert_eq!(titles(40), "NAME STATE NOTE");
        assert_eq!(titles(36), "NAME STATE");
    }

    #[test]
    fn text_is_cut_off_where_the_terminal_ends() {
        let lines = drawn(50);
        assert_eq!(lines[1], "a-long-name  needs attention  what happened las…");
    }

    #[test]
    fn states_stay_whole_and_rows_one_line() {
        for width in [20, 30, 40, 50, 60, 80, 200] {
            let lines = drawn(width);
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[1].contains("needs attention"), "{lines:?}");
        }
        for width in [40, 50, 60, 80] {
            assert!(
                drawn(width)
                    .iter()
                    .all(|line| line.chars().count() <= width.into()),
                "{width}"
            );
        }
    }
}
