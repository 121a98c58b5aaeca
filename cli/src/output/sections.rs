//! One thing, whole, in sections for people.

use super::text::{escape, memory, requester, verb};
use super::view::{Hypervisor, Operation};

/// `hostler hypervisors show`.
pub(crate) fn hypervisor(it: &Hypervisor) -> String {
    let mut page = Page::default();
    page.field("hypervisor", escape(&it.id));
    page.field("host", escape(&it.host));
    page.field("kind", it.kind.word());
    page.field("state", it.state.words());
    page.field("reason", escape(&it.reason));
    page.field(
        "agent",
        match (it.connected, it.agent_version.is_empty()) {
            (true, true) => "connected".into(),
            (true, false) => format!("connected, version {}", escape(&it.agent_version)),
            (false, _) => "not connected".to_owned(),
        },
    );
    page.field(
        "last heard",
        it.last_heard
            .as_deref()
            .unwrap_or("not since the coordinator started"),
    );
    page.field("enrolled", it.enrolled.as_deref().unwrap_or(""));

    page.section("inventory");
    page.field("cpu", format!("{} threads", it.cpu_threads));
    page.field("ram", memory(it.memory_mb));
    page.field("changed", it.inventory_changed.as_deref().unwrap_or(""));
    if let Some(libvirt) = &it.libvirt {
        let state = match (libvirt.problem.is_empty(), libvirt.version.is_empty()) {
            (true, true) => "version unknown".to_owned(),
            (true, false) => libvirt.version.clone(),
            (false, _) => format!("does not answer: {}", libvirt.problem),
        };
        page.field("libvirt", escape(&format!("{} {state}", libvirt.uri)));
    }

    page.section("gpus");
    for gpu in &it.gpus {
        page.line(&format!("{}  {} {}", gpu.pci_address, gpu.brand, gpu.model));
    }
    page.section("shared storage");
    for storage in &it.shared_storage {
        let state = if storage.usable {
            "usable".into()
        } else {
            format!("not usable: {}", storage.problem)
        };
        page.line(&format!("{}  {state}", storage.path));
    }
    page.section("running domains");
    for domain in &it.running_domains {
        page.line(&format!("{}  {}", domain.uuid, domain.name));
    }
    page.section("operations that have not ended");
    for id in &it.operation_ids {
        page.line(id);
    }
    page.end()
}

/// `hostler operations show`.
pub(crate) fn operation(it: &Operation) -> String {
    let mut page = Page::default();
    page.field("operation", escape(&it.id));
    page.field("resource", escape(&it.resource));
    page.field("kind", verb(&it.kind));
    page.field(
        "asks for",
        it.request
            .as_ref()
            .map(|asked| escape(&asked.words()))
            .unwrap_or_default(),
    );
    page.field("state", it.state.word());
    if it.needs_attention {
        page.field(
            "attention",
            "nobody knows what is true of the resource; it stays locked until resolved",
        );
    }
    page.field("message", escape(&it.message));
    page.field("requested", it.requested.as_deref().unwrap_or(""));
    page.field("by", requester(&it.requested_by));
    page.field("why", escape(&it.reason));
    page.field("ended", it.ended.as_deref().unwrap_or(""));
    page.field("attempts", it.attempts.to_string());
    page.field("fence", it.fence.to_string());
    page.field("locked until", it.locked_until.as_deref().unwrap_or(""));
    if it.is_disabled_cancel {
        page.field("cancel", "not allowed while it is held");
    }
    page.section("log");
    for line in it.logs.iter().flatten() {
        page.line(&format!(
            "{}  {}",
            line.time.as_deref().unwrap_or("-"),
            line.message
        ));
    }
    page.end()
}

/// Fields in a column, then sections. A field without a value and a section without lines are left out.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    heading: Option<&'static str>,
    indented: bool,
}

impl Page {
    pub(super) fn field(&mut self, name: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.raw(&format!("{name:<14}{value}"));
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        self.raw(&escape(text));
    }

    pub(super) fn section(&mut self, heading: &'static str) {
        self.heading = Some(heading);
    }

    fn raw(&mut self, line: &str) {
        if let Some(heading) = self.heading.take() {
            self.text.push_str(&format!("\n{heading}\n"));
            self.indented = true;
        }
        if self.indented {
            self.text.push_str("  ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(super) fn end(self) -> String {
        self.text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_hypervisor_is_shown_whole() {
        insta::assert_snapshot!(hypervisor(&samples::hypervisors()[0]));
    }

    #[test]
    fn a_hypervisor_in_trouble_says_what_is_wrong() {
        insta::assert_snapshot!(hypervisor(&samples::hypervisors()[2]));
    }

    #[test]
    fn an_operation_is_shown_with_its_log() {
        insta::assert_snapshot!(operation(&samples::operations()[0]));
    }

    #[test]
    fn an_operation_that_cannot_be_cancelled_says_so() {
        let mut it = samples::operations().remove(1);
        assert!(!operation(&it).contains("cancel"));
        it.is_disabled_cancel = true;
        assert!(operation(&it).contains("cancel        not allowed while it is held"));
    }

    #[test]
    fn an_operation_on_a_pool_says_how_much() {
        insta::assert_snapshot!(operation(&samples::operations()[2]));
    }

    #[test]
    fn control_characters_of_a_log_are_escaped() {
        let mut it = samples::operations().remove(0);
        it.logs = Some(vec![super::super::view::LogLine {
            time: None,
            message: "a\x1bb".into(),
        }]);
        assert!(operation(&it).contains("a\\u{1b}b"));
    }
}
