//! Checks the lengths in an answer against the bytes that are there, before it is decoded.
//!
//! The decoder allocates as many elements as an array claims to have, and an allocation that fails
//! ends the process: a peer that lies must not get that far. Pure.

/// What a stretch of an answer is made of.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A string, possibly null: 16 bits of length.
    Text,
    /// A string, possibly null, of the flexible versions: its length as a varint, one too large.
    CompactText,
    /// An array, possibly null: 32 bits of count.
    Array(Vec<Shape>),
    /// An array, possibly null, of the flexible versions: its count as a varint, one too large.
    CompactArray(Vec<Shape>),
    /// Tagged fields: their count, then for each its tag, its size, and so many bytes.
    Tags,
}

/// Moves `input` behind these; an error if it ends before, or a length is impossible.
pub(super) fn skip(shapes: &[Shape], input: &mut &[u8]) -> Result<(), String> {
    for shape in shapes {
        match shape {
            Shape::Fixed(size) => drop(take(*size, input)?),
            Shape::Text => match i16::from_be_bytes(number(input)?) {
                -1 => {}
                size => drop(take(unsigned(i64::from(size))?, input)?),
            },
            Shape::CompactText => match varint(input)? {
                0 => {}
                size => drop(take(size as usize - 1, input)?),
            },
            Shape::Array(element) => match i32::from_be_bytes(number(input)?) {
                -1 => {}
                count => repeat(unsigned(i64::from(count))?, element, input)?,
            },
            Shape::CompactArray(element) => match varint(input)? {
                0 => {}
                count => repeat(count as usize - 1, element, input)?,
            },
            Shape::Tags => {
                for _ in 0..varint(input)? {
                    varint(input)?;
                    let size = varint(input)?;
                    take(size as usize, input)?;
                }
            }
        }
    }
    Ok(())
}

/// Each turn takes at least one byte, or fails: a lie about `count` ends with the input.
fn repeat(count: usize, element: &[Shape], input: &mut &[u8]) -> Result<(), String> {
    for _ in 0..count {
        skip(element, input)?;
    }
    Ok(())
}

fn take<'a>(size: usize, input: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let (taken, rest) = input
        .split_at_checked(size)
        .ok_or_else(|| format!("{size} bytes are announced where {} are left", input.len()))?;
    *input = rest;
    Ok(taken)
}

fn number<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    take(N, input)?.try_into().map_err(|_| "it ends too early".to_owned())
}

fn unsigned(size: i64) -> Result<usize, String> {
    usize::try_from(size).map_err(|_| format!("a length of {size}"))
}

/// An unsigned varint of at most 32 bits, seven of them a byte, the lowest first.
fn varint(input: &mut &[u8]) -> Result<u32, String> {
    let mut value = 0_u64;
    for place in 0..5 {
        let [byte] = number::<1>(input)?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| "a varint of more than 32 bits".to_owned());
        }
    }
    Err("a varint of more than five bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(shapes: &[Shape], bytes: &[u8]) -> Result<usize, String> {
        let mut input = bytes;
        skip(shapes, &mut input).map(|()| input.len())
    }

    #[test]
    fn whole_answers_pass() {
        assert_eq!(left(&[Shape::Text, Shape::Fixed(1)], b"\0\x02ab!rest"), Ok(4));
        assert_eq!(left(&[Shape::Text, Shape::CompactText], b"\xff\xff\0"), Ok(0));
        assert_eq!(left(&[Shape::CompactText], b"\x03ab"), Ok(0));
        assert_eq!(left(&[Shape::Array(vec![Shape::Fixed(2)])], b"\0\0\0\x02aabb."), Ok(1));
        assert_eq!(left(&[Shape::Array(vec![Shape::Fixed(2)])], b"\xff\xff\xff\xff"), Ok(0));
        assert_eq!(left(&[Shape::CompactArray(vec![Shape::Fixed(1)])], b"\x03ab"), Ok(0));
        assert_eq!(left(&[Shape::Tags], b"\x02\x00\x01a\x01\x02bc"), Ok(0));
        assert_eq!(left(&[Shape::Tags], b"\0"), Ok(0));
    }

    #[test]
    fn lies_about_lengths_are_found() {
        let array = |element| vec![Shape::Array(element)];
        assert!(left(&array(vec![Shape::Fixed(1)]), b"\x7f\xff\xff\xffabc").is_err());
        assert!(left(&array(vec![Shape::Fixed(1)]), b"\x80\0\0\0abc").is_err());
        assert!(left(&array(vec![Shape::Text]), b"\0\0\0\x01\x7f\xffabc").is_err());
        assert!(left(&[Shape::Text], b"\xff\xfeabc").is_err());
        assert!(left(&[Shape::Text], b"\0").is_err());
        assert!(left(&[Shape::CompactText], b"\xff\xff\xff\xff\x0f").is_err());
        assert!(left(&[Shape::CompactArray(vec![Shape::Tags])], b"\xff\xff\xff\xff\x0f\0\0").is_err());
        assert!(left(&[Shape::CompactText], b"\xff\xff\xff\xff\xff\x01").is_err());
        assert!(left(&[Shape::CompactText], b"\xff\xff\xff\xff\x1f").is_err());
        assert!(left(&[Shape::Tags], b"\xff\xff\xff\xff\x0f").is_err());
    }
}
