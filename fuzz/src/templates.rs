//! Templates of a guest's domain: a site's own text, and the built-in one with foreign values.

use hostler_agent::fuzzing;
use roxmltree::Document;

use crate::said;

/// # Panics
/// When a value brings XML of its own, or a sentence is too long.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(sentence) = fuzzing::guest_template(&text) {
        said::bounded(&sentence);
    }
    // An empty value leaves its element out.
    if text.is_empty() {
        return;
    }
    let plain = fuzzing::domain_with("x").expect("a plain name fills the built-in template");
    match fuzzing::domain_with(&text) {
        Ok(domain) => {
            // What XML cannot hold, as most control characters, libvirt refuses.
            if let Ok(document) = Document::parse(&domain) {
                let plain = Document::parse(&plain).expect("the built-in template is XML");
                assert_eq!(shape(&plain), shape(&document), "{text:?} brings XML of its own");
            }
        }
        Err(sentence) => said::bounded(&sentence),
    }
}

/// Each element with the names of its attributes, in order.
fn shape(document: &Document<'_>) -> Vec<String> {
    let elements = document.descendants().filter(|node| node.is_element());
    elements
        .map(|element| {
            let attributes: Vec<_> = element.attributes().map(|one| one.name()).collect();
            format!("{} {}", element.tag_name().name(), attributes.join(" "))
        })
        .collect()
}
