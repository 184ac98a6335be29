//! Columns of whatever width a producer chose, brought to one form.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, LargeStringArray,
    OffsetSizeTrait, StructArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Int64Type};

/// Values that do not fit the wanted type are errors, never nulls.
const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

fn cast(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    if array.data_type() == &DataType::Null {
        return Ok(new_null_array(wanted, array.len()));
    }
    cast_with_options(array, wanted, &STRICT).map_err(|e| e.to_string())
}

fn unexpected<T>(expected: &str, found: &DataType) -> Result<T, String> {
    Err(format!("expected {expected}, found {found}"))
}

/// Any integer type as int64.
pub(super) fn integers(array: &ArrayRef) -> Result<Int64Array, String> {
    if array.data_type().is_integer() || array.data_type() == &DataType::Null {
        Ok(cast(array, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .clone())
    } else {
        unexpected("integers", array.data_type())
    }
}

/// Any floating-point type as float32.
pub(super) fn floats(array: &ArrayRef) -> Result<Float32Array, String> {
    if array.data_type().is_numeric() || array.data_type() == &DataType::Null {
        Ok(cast(array, &DataType::Float32)?
            .as_primitive::<Float32Type>()
            .clone())
    } else {
        unexpected("floating-point numbers", array.data_type())
    }
}

/// Any text type.
pub(super) fn strings(array: &ArrayRef) -> Result<LargeStringArray, String> {
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            Ok(cast(array, &DataType::LargeUtf8)?.as_string().clone())
        }
        other => unexpected("text", other),
    }
}

/// Truth values.
pub(super) fn booleans(array: &ArrayRef) -> Result<BooleanArray, String> {
    match array.data_type() {
        DataType::Boolean | DataType::Null => {
            Ok(cast(array, &DataType::Boolean)?.as_boolean().clone())
        }
        other => unexpected("truth values", other),
    }
}

/// A struct column; `None` where the whole column is null.
pub(super) fn structure(array: &ArrayRef) -> Result<Option<StructArray>, String> {
    match array.data_type() {
        DataType::Struct(_) => Ok(Some(array.as_struct().clone())),
        DataType::Null => Ok(None),
        other => unexpected("a struct", other),
    }
}

/// A list column of either offset width: where each row's elements lie in `values`.
pub(super) struct Lists {
    offsets: Vec<usize>,
    nulls: Option<NullBuffer>,
    pub(super) values: ArrayRef,
}

impl Lists {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, String> {
        match array.data_type() {
            DataType::List(_) => Ok(Self::of::<i32>(array)),
            DataType::LargeList(_) => Ok(Self::of::<i64>(array)),
            DataType::FixedSizeList(_, size) => {
                let list = array.as_fixed_size_list();
                let size = usize::try_from(*size).map_err(|e| e.to_string())?;
                Ok(Self {
                    offsets: (0..=array.len()).map(|i| i * size).collect(),
                    nulls: array.nulls().cloned(),
                    values: list.values().clone(),
                })
            }
            DataType::Null => Ok(Self {
                offsets: vec![0; array.len() + 1],
                nulls: Some(NullBuffer::new_null(array.len())),
                values: new_null_array(&DataType::Null, 0),
            }),
            other => unexpected("a list", other),
        }
    }

    fn of<O: OffsetSizeTrait>(array: &ArrayRef) -> Self {
        let list = array.as_list::<O>();
        Self {
            offsets: list.offsets().iter().map(|o| o.as_usize()).collect(),
            nulls: list.nulls().cloned(),
            values: list.values().clone(),
        }
    }

    /// The element range of one row; `None` for a null list.
    pub(super) fn row(&self, row: usize) -> Option<Range<usize>> {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            return None;
        }
        Some(self.offsets[row]..self.offsets[row + 1])
    }
}

/// A list of integers.
pub(super) struct IntegerLists {
    lists: Lists,
    values: Int64Array,
}

impl IntegerLists {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, String> {
        let lists = Lists::new(array)?;
        let values = integers(&lists.values)?;
        Ok(Self { lists, values })
    }

    /// One row's integers, each at most `max`; `Ok(None)` for a null list.
    pub(super) fn row(&self, row: usize, max: u64) -> Result<Option<Vec<u64>>, String> {
        let Some(range) = self.lists.row(row) else {
            return Ok(None);
        };
        let mut out = Vec::with_capacity(range.len());
        for (i, at) in range.enumerate() {
            if self.values.is_null(at) {
                return Err(format!("entry {i} is null"));
            }
            let value = self.values.value(at);
            match u64::try_from(value) {
                Ok(v) if v <= max => out.push(v),
                _ => return Err(format!("entry {i} is {value}, expected 0 to {max}")),
            }
        }
        Ok(Some(out))
    }

    /// One row's integers as `u32`.
    pub(super) fn row_u32(&self, row: usize) -> Result<Option<Vec<u32>>, String> {
        let values = self.row(row, u64::from(u32::MAX))?;
        Ok(values.map(|v| v.into_iter().map(|x| x as u32).collect()))
    }
}

/// A list of floating-point numbers.
pub(super) struct FloatLists {
    lists: Lists,
    values: Float32Array,
}

impl FloatLists {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, String> {
        let lists = Lists::new(array)?;
        let values = floats(&lists.values)?;
        Ok(Self { lists, values })
    }

    /// One row's numbers; `Ok(None)` for a null list.
    pub(super) fn row(&self, row: usize) -> Result<Option<Vec<f32>>, String> {
        let Some(range) = self.lists.row(row) else {
            return Ok(None);
        };
        range
            .enumerate()
            .map(|(i, at)| {
                if self.values.is_null(at) {
                    Err(format!("entry {i} is null"))
                } else {
                    Ok(self.values.value(at))
                }
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// The text of one row; `None` where it is null.
pub(super) fn text(array: &LargeStringArray, row: usize) -> Option<String> {
    array.is_valid(row).then(|| array.value(row).to_owned())
}
