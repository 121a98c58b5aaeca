//! Lists of hypervisors and operations for people.

use comfy_table::{Cell, Color};

use super::Terminal;
use super::sheet::{self, Column, Rank};
use super::text::{escape, memory, or_dash, requester, verb};
use super::view::{Gpu, Hypervisor, Operation, OperationState, State};

const HYPERVISORS: [Column; 8] = [
    ("ID", Rank::Name),
    ("HOST", Rank::Name),
    ("KIND", Rank::Optional(2)),
    ("STATE", Rank::Whole),
    ("CPU", Rank::Optional(3)),
    ("RAM", Rank::Optional(4)),
    // GPUs say it too.
    ("CAPABILITIES", Rank::Optional(1)),
    ("GPUS", Rank::Text(16)),
];

/// `hostler hypervisors list`.
pub(crate) fn hypervisors(list: &[Hypervisor], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no hypervisor is enrolled".into();
    }
    let row = |it: &Hypervisor| {
        let capabilities: Vec<_> = it
            .capabilities
            .iter()
            .map(|capability| capability.word())
            .collect();
        vec![
            Cell::new(escape(&it.id)),
            Cell::new(escape(&it.host)),
            Cell::new(it.kind.word()),
            Cell::new(it.state.words()).fg(state_colour(it.state)),
            Cell::new(it.cpu_threads),
            Cell::new(memory(it.memory_mb)),
            Cell::new(or_dash(capabilities.join(","))),
            Cell::new(or_dash(gpus(&it.gpus))),
        ]
    };
    sheet::draw(&HYPERVISORS, list.iter().map(row).collect(), terminal)
}

const OPERATIONS: [Column; 7] = [
    ("ID", Rank::Whole),
    ("RESOURCE", Rank::Name),
    ("KIND", Rank::Name),
    ("STATE", Rank::Whole),
    // `show` has the time, and ids are in its order.
    ("REQUESTED", Rank::Optional(1)),
    ("REQUESTED BY", Rank::Optional(2)),
    ("MESSAGE", Rank::Text(24)),
];

/// `hostler operations list`.
pub(crate) fn operations(list: &[Operation], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no operations".into();
    }
    let row = |it: &Operation| {
        let state = match it.needs_attention {
            true => "needs attention",
            false => it.state.word(),
        };
        vec![
            Cell::new(escape(&it.id)),
            Cell::new(escape(&it.resource)),
            Cell::new(verb(&it.kind)),
            Cell::new(state).fg(operation_colour(it.state)),
            Cell::new(it.requested.as_deref().unwrap_or("-")),
            Cell::new(or_dash(requester(&it.requested_by))),
            Cell::new(or_dash(escape(&it.message))),
        ]
    };
    sheet::draw(&OPERATIONS, list.iter().map(row).collect(), terminal)
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
    fn hypervisors_on_terminals_keep_their_names_and_states() {
        for width in [80, 100] {
            let terminal = Terminal {
                width: Some(width),
                colour: false,
                spinner: true,
            };
            let drawn = hypervisors(&samples::hypervisors(), terminal);
            let fits = |line: &str| line.chars().count() <= usize::from(width);
            assert!(drawn.lines().all(fits), "{drawn}");
            assert!(
                drawn.contains("nested-1") && drawn.contains("out of service"),
                "{drawn}"
            );
            insta::assert_snapshot!(format!("hypervisors_on_{width}_columns"), drawn);
        }
    }

    #[test]
    fn operations_into_a_pipe_are_not_cut_off() {
        insta::assert_snapshot!(operations(&samples::operations(), PIPE));
    }

    #[test]
    fn operations_on_terminals_are_one_line_each_with_whole_ids() {
        for width in [80, 100, 160] {
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
