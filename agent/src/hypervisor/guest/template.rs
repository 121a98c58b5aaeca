//! The domain's XML: the built-in template or the site's own, filled in.
//!
//! Every value is escaped, so none can bring XML of its own; a misspelt name in a template is an error and not
//! an empty element.

use std::fmt::Write as _;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use uuid::Uuid;

use crate::config::{GuestConfig, PciAddress};

const BUILT_IN: &str = include_str!("domain.xml");

/// A template that is one.
#[derive(Debug, Clone)]
pub(super) struct Template {
    source: String,
}

/// What a template is filled in with.
#[derive(Debug, Serialize)]
pub(super) struct Values<'a> {
    pub(super) domain_type: &'a str,
    pub(super) machine: Option<&'a str>,
    pub(super) uuid: String,
    pub(super) name: &'a str,
    pub(super) hypervisor: &'a str,
    pub(super) memory_mb: u64,
    pub(super) cpu: u32,
    pub(super) kernel: Option<String>,
    pub(super) initrd: Option<String>,
    pub(super) cmdline: Option<&'a str>,
    pub(super) disk: String,
    pub(super) disk_format: &'a str,
    pub(super) networks: Vec<&'a str>,
    pub(super) pci_devices: Vec<Place>,
    pub(super) serial_log: Option<String>,
}

/// A PCI address in hexadecimal digits, as domain XML takes it.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    domain: String,
    bus: String,
    slot: String,
    function: String,
}

impl From<&PciAddress> for Place {
    fn from(address: &PciAddress) -> Self {
        Self {
            domain: format!("{:04x}", address.domain),
            bus: format!("{:02x}", address.bus),
            slot: format!("{:02x}", address.slot),
            function: format!("{:x}", address.function),
        }
    }
}

impl<'a> Values<'a> {
    /// What the configuration says. The rest is known when the domain is defined.
    pub(super) fn of(config: &'a GuestConfig) -> Self {
        Self {
            domain_type: "",
            machine: None,
            uuid: String::new(),
            name: config.id.as_str(),
            hypervisor: config.id.as_str(),
            memory_mb: config.memory_mb.get(),
            cpu: config.cpu.get(),
            kernel: config.kernel.as_ref().map(ToString::to_string),
            initrd: config.initrd.as_ref().map(ToString::to_string),
            cmdline: config.cmdline.as_deref(),
            disk: String::new(),
            disk_format: "qcow2",
            networks: config.networks.iter().map(|network| network.as_str()).collect(),
            pci_devices: config.pci_devices.iter().map(Place::from).collect(),
            serial_log: config.serial_log.as_ref().map(ToString::to_string),
        }
    }
}

impl Template {
    /// The built-in template.
    pub(super) fn built_in() -> Self {
        Self {
            source: BUILT_IN.to_owned(),
        }
    }

    /// The site's own.
    ///
    /// # Errors
    /// When its syntax is wrong.
    pub(super) fn parse(source: String) -> Result<Self, Box<minijinja::Error>> {
        environment().template_from_str(&source).map_err(Box::new)?;
        Ok(Self { source })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// When it uses a value that there is not.
    pub(super) fn render(&self, values: &Values<'_>) -> Result<String, Box<minijinja::Error>> {
        environment()
            .render_str(&self.source, Serde(values))
            .map_err(Box::new)
    }
}

/// What shows that `xml` defines another domain than the one of this name and UUID. What is not XML at all is
/// libvirt's to refuse, in its own words.
pub(super) fn other_domain(xml: &str, name: &str, uuid: Uuid) -> Option<String> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let text = |tag| {
        let root = document.root_element();
        let node = root.children().find(|node| node.has_tag_name(tag))?;
        node.text().map(str::trim)
    };
    match (text("name"), text("uuid")) {
        (None, _) => Some("it has no <name>".to_owned()),
        (Some(found), _) if found != name => Some(format!("it names {found}")),
        (_, None) => Some("it has no <uuid>".to_owned()),
        (_, Some(found)) if found.parse() != Ok(uuid) => Some(format!("its uuid is {found} and not {uuid}")),
        _ => None,
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_formatter(|output, state, value| {
        if value.is_undefined() {
            return minijinja::escape_formatter(output, state, value);
        }
        for character in value.to_string().chars() {
            match character {
                '&' => output.write_str("&amp;")?,
                '<' => output.write_str("&lt;")?,
                '>' => output.write_str("&gt;")?,
                '"' => output.write_str("&quot;")?,
                '\'' => output.write_str("&apos;")?,
                other => output.write_char(other)?,
            }
        }
        Ok(())
    });
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values<'static> {
        Values {
            domain_type: "qemu",
            machine: Some("q35"),
            uuid: "7f3c1f0e-0000-5000-8000-000000000001".into(),
            name: "demo-guest-1",
            hypervisor: "demo-guest-1",
            memory_mb: 256,
            cpu: 1,
            kernel: None,
            initrd: None,
            cmdline: None,
            disk: "/pool/hostler-demo-guest-1.qcow2".into(),
            disk_format: "qcow2",
            networks: vec![],
            pci_devices: vec![],
            serial_log: None,
        }
    }

    #[test]
    fn the_smallest_guest_boots_from_its_disk() {
        insta::assert_snapshot!(Template::built_in().render(&values()).unwrap());
    }

    #[test]
    fn a_guest_with_everything_runs_by_kvm_and_boots_a_kernel() {
        let everything = Values {
            domain_type: "kvm",
            kernel: Some("/boot/vmlinuz".into()),
            initrd: Some("/boot/initrd.img".into()),
            cmdline: Some("console=ttyS0 quiet"),
            networks: vec!["default", "hostler-demo"],
            pci_devices: vec![Place::from(&"0000:65:00.1".parse().unwrap())],
            serial_log: Some("/var/log/demo-guest-1.log".into()),
            ..values()
        };
        insta::assert_snapshot!(Template::built_in().render(&everything).unwrap());
    }

    #[test]
    fn a_value_cannot_bring_xml_of_its_own() {
        let hostile = Values {
            kernel: Some("/k".into()),
            cmdline: Some("a='1' </cmdline><devices>&"),
            networks: vec!["'/><evil a='"],
            ..values()
        };
        let xml = Template::built_in().render(&hostile).unwrap();
        let document = roxmltree::Document::parse(&xml).unwrap();
        let text = |tag| {
            document
                .descendants()
                .find(|node| node.has_tag_name(tag))
                .unwrap()
        };
        assert_eq!(text("cmdline").text(), Some("a='1' </cmdline><devices>&"));
        assert!(!document.descendants().any(|node| node.has_tag_name("evil")));
    }

    #[test]
    fn a_definition_is_ours_by_its_name_and_its_uuid() {
        let uuid = Uuid::from_u128(7);
        let problem = |body: &str| other_domain(&format!("<domain>{body}</domain>"), "g1", uuid);
        assert_eq!(problem(&format!("<name>g1</name><uuid> {uuid} </uuid>")), None);
        assert_eq!(problem("<name>g1</name>"), Some("it has no <uuid>".into()));
        assert_eq!(
            problem(&format!("<uuid>{uuid}</uuid>")),
            Some("it has no <name>".into())
        );
        assert_eq!(problem("<name>web</name>"), Some("it names web".into()));
        let foreign = problem(&format!("<name>g1</name><uuid>{}</uuid>", Uuid::from_u128(8)));
        assert!(foreign.is_some_and(|problem| problem.contains("and not")));
        assert_eq!(other_domain("<domain>", "g1", uuid), None);
    }

    #[test]
    fn a_misspelt_name_is_an_error_and_so_is_a_broken_template() {
        let template = Template::parse("<name>{{ nmae }}</name>".into()).unwrap();
        assert!(template.render(&values()).is_err());
        assert!(Template::parse("{% if %}".into()).is_err());
    }
}
