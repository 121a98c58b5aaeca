//! A sequence of messages in one input: each is a length of two bytes, the lower first, and that many bytes. The last may be
//! cut short.

/// The messages of `data`.
pub fn split(mut data: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        messages.push(message);
        data = rest;
    }
    messages
}

/// The input that is these messages.
pub fn join(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    for message in messages {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(&message[..usize::from(length)]);
    }
    data
}
