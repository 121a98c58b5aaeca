//! Inputs made from others, by a seed: what a fuzzer does, without one. The same seed makes the same inputs.

/// Texts that have made programs fail before.
const NASTY: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"/",
    b"..",
    b"../../etc/passwd",
    b"-",
    b"--help",
    b"$(reboot)",
    b"`reboot`",
    b";reboot",
    b"\x1b[31m",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u{202e}".as_bytes(),
    "é".as_bytes(),
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"1e309",
    b"<!DOCTYPE a [<!ENTITY b \"c\">]>",
    b"&amp;",
    b"{{",
    b"\"",
];

/// Inputs that no format expects: nothing, much of one byte, deep nesting, all bytes.
pub fn plain() -> Vec<Vec<u8>> {
    const MANY: usize = 1 << 20;
    let mut inputs = vec![Vec::new(), (0..=255).collect()];
    inputs.extend(NASTY.map(<[u8]>::to_vec));
    inputs.extend([b'a', b'\n', b'-'].map(|byte| vec![byte; MANY]));
    inputs.extend([b'/', b'.', b' ', 0, 0xff].map(|byte| vec![byte; MANY / 16]));
    for deep in [
        "[", "{\"a\":", "<a>", "{%if a%}", "{{(", "&a;", "[a.", "(", "../", "\\", "0x",
    ] {
        inputs.push(deep.repeat(20_000).into_bytes());
    }
    inputs
}

/// Makes inputs by a seed (splitmix64).
#[derive(Debug)]
pub struct Mutations {
    state: u64,
}

impl Mutations {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or_default()
    }

    /// An input between those of `kept`, a few changes away from one.
    pub fn input(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = kept.get(self.below(kept.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            self.change(&mut input, kept);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(7) {
            0 => input.insert(at, self.next() as u8),
            1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = self.next() as u8,
            3 => {
                let end = at + self.below(input.len() - at + 1);
                input.drain(at..end);
            }
            4 => {
                let end = at + self.below((input.len() - at + 1).min(64));
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let other = kept.get(self.below(kept.len())).cloned().unwrap_or_default();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                input.splice(at..at, NASTY[self.below(NASTY.len())].iter().copied());
            }
        }
    }
}
