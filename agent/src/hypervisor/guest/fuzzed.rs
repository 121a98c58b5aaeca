//! The door of fuzzing to the template of a domain and to the XML that comes of it.

use uuid::Uuid;

use super::template::{Template, Values, other_domain};

const NAME: &str = "guest-1";

pub(in super::super) fn definition(xml: &str) -> Option<String> {
    other_domain(xml, NAME, Uuid::nil())
}

pub(in super::super) fn template(source: &str) -> Result<String, String> {
    let template = Template::parse(source.to_owned()).map_err(|error| error.to_string())?;
    template.render(&values(NAME)).map_err(|error| error.to_string())
}

pub(in super::super) fn domain_with(text: &str) -> Result<String, String> {
    let rendered = Template::built_in().render(&values(text));
    rendered.map_err(|error| error.to_string())
}

/// `text` in each place where a configuration or libvirt brings one.
fn values(text: &str) -> Values<'_> {
    Values {
        domain_type: "kvm",
        machine: Some(text),
        uuid: Uuid::nil().to_string(),
        name: text,
        hypervisor: text,
        memory_mb: 1024,
        cpu: 2,
        kernel: Some(text.to_owned()),
        initrd: Some(text.to_owned()),
        cmdline: Some(text),
        disk: text.to_owned(),
        disk_format: text,
        networks: vec![text, NAME],
        pci_devices: Vec::new(),
        serial_log: Some(text.to_owned()),
    }
}
