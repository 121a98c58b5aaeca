//! What reads foreign bytes, each as a function of bytes: what peers send, what libvirt and programs print, what lies on
//! disks, what people type. A fuzzer calls them for long, a test for seconds; both call the same.
//!
//! It judges by panics: a target panics when the product does, or when something that must hold for every input does not.
//! It starts no program and touches nothing but its own temporary folder.

pub mod certificates;
pub mod command_line;
pub mod configuration;
pub mod coordinator;
pub mod desk;
pub mod frames;
pub mod inputs;
pub mod journal;
pub mod names;
pub mod plans;
pub mod printed;
pub mod records;
pub mod said;
pub mod templates;

/// A reader of foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its folder of kept inputs and of its program.
    pub name: &'static str,
    /// Reads the bytes. Panics when something is wrong.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 13] = [
    Target {
        name: "agent_desk",
        run: desk::run,
    },
    Target {
        name: "agent_journal",
        run: journal::run,
    },
    Target {
        name: "certificates",
        run: certificates::run,
    },
    Target {
        name: "command_line",
        run: command_line::run,
    },
    Target {
        name: "configuration",
        run: configuration::run,
    },
    Target {
        name: "coordinator_calls",
        run: coordinator::calls::run,
    },
    Target {
        name: "coordinator_sessions",
        run: coordinator::sessions::run,
    },
    Target {
        name: "guest_templates",
        run: templates::run,
    },
    Target {
        name: "libvirt_xml",
        run: printed::libvirt_xml,
    },
    Target {
        name: "names",
        run: names::run,
    },
    Target {
        name: "storage_plans",
        run: plans::run,
    },
    Target {
        name: "stored_records",
        run: records::run,
    },
    Target {
        name: "tool_output",
        run: printed::tool_output,
    },
];

/// Lets the target of this name read `data`.
///
/// # Panics
/// When the target does, or there is none.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no target {name}"));
    (target.run)(data);
}
