//! Reading and writing Kafka's wire format, with every bound checked.
//!
//! Owns nothing but bytes. A request that ends too early, or claims more than it has, is
//! [`Malformed`], whatever it says.

use std::ops::Range;

/// A request that does not hold what it claims to hold. Its connection is closed, as Kafka does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes values off the front of a message.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether strings and arrays are of the compact form, and structures end with tagged fields.
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, flexible: false }
    }

    /// From here on, the message is of a flexible version.
    pub(crate) fn set_flexible(&mut self) {
        self.flexible = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array_of().map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array_of().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array_of().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array_of().map(i64::from_be_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        self.i8().map(|byte| byte != 0)
    }

    pub(crate) fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array_of()
    }

    /// Seven bits a byte, the lowest first; at most 32 bits.
    fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array_of()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    /// A count or length; `None` for null.
    fn count(&mut self, short: bool) -> Result<Option<usize>, Malformed> {
        let count = match (self.flexible, short) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        match count {
            -1 => Ok(None),
            count => usize::try_from(count).map(Some).map_err(|_| Malformed),
        }
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<String>, Malformed> {
        let Some(length) = self.count(true)? else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(|text| Some(text.to_owned())).map_err(|_| Malformed)
    }

    pub(crate) fn string(&mut self) -> Result<String, Malformed> {
        self.nullable_string()?.ok_or(Malformed)
    }

    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        self.count(false)?.map(|length| self.take(length)).transpose()
    }

    /// An array of at least one byte an element; `None` for null.
    pub(crate) fn nullable_array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(count) = self.count(false)? else { return Ok(None) };
        if count > self.rest.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| element(self)).collect::<Result<_, _>>().map(Some)
    }

    pub(crate) fn array<T>(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        self.nullable_array(element).map(Option::unwrap_or_default)
    }

    /// Skips the tagged fields at the end of a structure, if this version has them.
    pub(crate) fn tags(&mut self) -> Result<(), Malformed> {
        if self.flexible {
            for _ in 0..self.uvarint()? {
                self.uvarint()?;
                let size = self.uvarint()?;
                self.take(usize::try_from(size).map_err(|_| Malformed)?)?;
            }
        }
        Ok(())
    }
}

/// Builds a message.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    flexible: bool,
    first_count: Option<Range<usize>>,
}

impl Writer {
    /// A message of a version that is flexible or not.
    pub(crate) fn new(flexible: bool) -> Self {
        Self { flexible, ..Self::default() }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn i8(&mut self, number: i8) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn i16(&mut self, number: i16) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, number: i32) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    pub(crate) fn uuid(&mut self, id: [u8; 16]) {
        self.bytes.extend_from_slice(&id);
    }

    fn uvarint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// A count as the protocol writes it. -1 is null.
    fn count(&mut self, count: i32) {
        if self.flexible { self.uvarint(count.wrapping_add(1).cast_unsigned()) } else { self.i32(count) }
    }

    pub(crate) fn nullable_string(&mut self, text: Option<&str>) {
        let length = text.map_or(-1, |text| i16::try_from(text.len()).unwrap_or(i16::MAX));
        if self.flexible {
            self.count(i32::from(length))
        } else {
            self.i16(length)
        }
        self.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    pub(crate) fn nullable_bytes(&mut self, bytes: Option<&[u8]>) {
        self.count(bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX)));
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
    }

    /// The count of an array; its elements follow.
    pub(crate) fn array(&mut self, elements: usize) {
        let start = self.bytes.len();
        self.count(i32::try_from(elements).unwrap_or(i32::MAX));
        self.first_count.get_or_insert(start..self.bytes.len());
    }

    /// An array that is null.
    pub(crate) fn null_array(&mut self) {
        self.count(-1);
    }

    /// An array of numbers.
    pub(crate) fn i32s(&mut self, numbers: &[i32]) {
        self.array(numbers.len());
        for number in numbers {
            self.i32(*number);
        }
    }

    /// The tagged fields at the end of a structure: none, if this version has them at all.
    pub(crate) fn tags(&mut self) {
        if self.flexible {
            self.uvarint(0);
        }
    }

    /// Replaces the count of the first array, for a fault. Without an array nothing is changed.
    pub(crate) fn falsify_first_count(&mut self, count: i32) {
        if let Some(range) = self.first_count.clone() {
            let rest = self.bytes.split_off(range.end);
            self.bytes.truncate(range.start);
            self.count(count);
            self.bytes.extend(rest);
        }
    }

    /// Appends bytes that belong to nothing, for a fault.
    pub(crate) fn pad(&mut self, bytes: usize) {
        self.bytes.resize(self.bytes.len() + bytes, 0);
    }
}
