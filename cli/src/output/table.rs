//! Lists for people. A row is one line: what does not fit the terminal is cut off at its message, and into
//! a pipe nothing is cut off.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table};

use super::Terminal;
use super::text::{escape, memory, requester, verb};
use super::view::{Gpu, Hypervisor, Operation, OperationState, State};

/// `hostler hypervisors list`.
pub(crate) fn hypervisors(list: &[Hypervisor], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no hypervisor is enrolled".into();
    }
    let mut table = table(
        &[
            "ID",
            "HOST",
            "KIND",
            "STATE",
            "CPU",
            "RAM",
            "CAPABILITIES",
            "GPUS",
        ],
        terminal,
    );
    for it in list {
        let capabilities: Vec<_> = it
            .capabilities
            .iter()
            .map(|capability| capability.word())
            .collect();
        table.add_row(one_line(vec![
            Cell::new(escape(&it.id)),
            Cell::new(escape(&it.host)),
            Cell::new(it.kind.word()),
            Cell::new(it.state.words()).fg(state_colour(it.state)),
            Cell::new(it.cpu_threads),
            Cell::new(memory(it.memory_mb)),
            Cell::new(or_dash(capabilities.join(","))),
            Cell::new(or_dash(gpus(&it.gpus))),
        ]));
    }
    draw(&table)
}

/// `hostler operations list`.
pub(crate) fn operations(list: &[Operation], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no operations".into();
    }
    // On a narrow terminal the message needs the room; `show` has the time.
    let wide = terminal.width.is_none_or(|width| width >= 140);
    let mut titles = vec!["ID", "RESOURCE", "KIND", "STATE", "REQUESTED BY", "MESSAGE"];
    if wide {
        titles.insert(4, "REQUESTED");
    }
    let mut table = table(&titles, terminal);
    // An id that is cut off cannot be copied, and a state not be read.
    for column in [0, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    for it in list {
        let state = match it.needs_attention {
            true => "needs attention",
            false => it.state.word(),
        };
        let mut cells = vec![
            Cell::new(escape(&it.id)),
            Cell::new(escape(&it.resource)),
            Cell::new(verb(&it.kind)),
            Cell::new(state).fg(operation_colour(it.state)),
            Cell::new(requester(&it.requested_by)),
            Cell::new(escape(&it.message)),
        ];
        if wide {
            cells.insert(4, Cell::new(it.requested.as_deref().unwrap_or("-")));
        }
        table.add_row(one_line(cells));
    }
    draw(&table)
}

/// GPUs by model, as `2× NVIDIA T4, NVIDIA A10`.
pub(crate) fn gpus(gpus: &[Gpu]) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for gpu in gpus {
        let name = escape(format!("{} {}", gpu.brand, gpu.model).trim());
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let words = counts.into_iter().map(|(name, count)| match count {
        1 => name,
        _ => format!("{count}× {name}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

fn table(header: &[&str], terminal: Terminal) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let titles = header
        .iter()
        .map(|title| Cell::new(title).add_attribute(Attribute::Bold));
    table.set_header(one_line(titles.collect()));
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
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn one_line(cells: Vec<Cell>) -> Row {
    let mut row = Row::from(cells);
    row.max_height(1);
    row
}

fn draw(table: &Table) -> String {
    table.trim_fmt()
}

fn state_colour(state: State) -> Color {
    match state {
        State::InService => Color::Green,
        State::OutOfService => Color::Reset,
        State::Unknown => Color::Yellow,
    }
}

fn operation_colour(state: OperationState) -> Color {
    match state {
        OperationState::Completed => Color::Green,
        OperationState::Failed => Color::Red,
        OperationState::Active => Color::Cyan,
        OperationState::Scheduled | OperationState::Unknown => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const PIPE: Terminal = Terminal {
        width: None,
        colour: false,
        spinner: false,
    };

    #[test]
    fn hypervisors_into_a_pipe() {
        insta::assert_snapshot!(hypervisors(&samples::hypervisors(), PIPE));
    }

    #[test]
    fn hypervisors_on_a_terminal_of_100_columns() {
        let terminal = Terminal {
            width: Some(100),
            colour: false,
            spinner: true,
        };
        let drawn = hypervisors(&samples::hypervisors(), terminal);
        assert!(drawn.lines().all(|line| line.chars().count() <= 100), "{drawn}");
        insta::assert_snapshot!(drawn);
    }

    #[test]
    fn operations_into_a_pipe_are_not_cut_off() {
        insta::assert_snapshot!(operations(&samples::operations(), PIPE));
    }

    #[test]
    fn operations_on_terminals_are_one_line_each_with_whole_ids() {
        for width in [100, 160] {
            let terminal = Terminal {
                width: Some(width),
                colour: false,
                spinner: true,
            };
            let drawn = operations(&samples::operations(), terminal);
            assert_eq!(drawn.lines().count(), 1 + samples::operations().len(), "{drawn}");
            insta::assert_snapshot!(format!("operations_on_{width}_columns"), drawn);
        }
    }

    #[test]
    fn colours_appear_only_when_allowed() {
        let colour = Terminal {
            width: None,
            colour: true,
            spinner: true,
        };
        assert!(hypervisors(&samples::hypervisors(), colour).contains("\x1b["));
        assert!(!hypervisors(&samples::hypervisors(), PIPE).contains('\x1b'));
    }

    #[test]
    fn control_characters_of_a_host_never_reach_the_terminal() {
        let mut list = samples::hypervisors();
        list[0].gpus[0].model = "T4\x1b[2J".into();
        list[0].id = "hv\r\n".into();
        let drawn = hypervisors(&list, PIPE);
        assert!(
            drawn.contains("T4\\u{1b}[2J") && drawn.contains("hv\\r\\n"),
            "{drawn}"
        );
        let mut list = samples::operations();
        list[0].message = "\u{9b}31mred".into();
        assert!(operations(&list, PIPE).contains("\\u{9b}31mred"));
    }

    #[test]
    fn empty_lists_say_so() {
        assert_eq!(hypervisors(&[], PIPE), "no hypervisor is enrolled");
        assert_eq!(operations(&[], PIPE), "no operations");
    }
}
