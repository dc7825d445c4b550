//! Objects by a number, without keeping them alive: what a dictionary of weak references does, for instances of native
//! classes, which can keep their own entry.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pyo3::ffi;

use super::{Class, Object, This};

/// Instances of native classes by number: by descriptor, say.
#[derive(Debug, Default)]
pub(crate) struct Registry(Rc<Table>);

/// By number. Written by `Registry::enter`, emptied by `Entry::drop` and `Registry::remove`.
type Table = RefCell<Vec<Slot>>;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Not counted as a reference. Null, or an object that holds the entry of this serial and so is alive, or being freed.
    object: *mut ffi::PyObject,
    /// Of the entry that wrote the slot last.
    serial: u32,
}

const EMPTY: Slot = Slot {
    object: std::ptr::null_mut(),
    serial: 0,
};

/// The entry of an instance, which it keeps: dropped with it, or before.
#[derive(Debug)]
pub(crate) struct Entry {
    table: Rc<Table>,
    number: u32,
    serial: u32,
}

impl Registry {
    /// Enters an instance under a number, in the place of whatever is there. `entry` is a field of the instance's own value.
    #[expect(
        clippy::panic,
        reason = "an entry that outlives its instance would leave a dangling pointer behind"
    )]
    pub(crate) fn enter<T: Class>(&self, number: u32, this: This<'_, '_, T>, entry: &Cell<Option<Entry>>) {
        let value: *const T = &raw const *this;
        let place: *const Cell<Option<Entry>> = entry;
        let inside = value.cast::<u8>().wrapping_add(size_of::<T>());
        if place.cast::<u8>() < value.cast::<u8>() || place.wrapping_add(1).cast::<u8>() > inside {
            panic!("an instance keeps its entry in itself");
        }
        entry.take();
        let serial = {
            let mut slots = self.0.borrow_mut();
            let index = number as usize;
            if index >= slots.len() {
                slots.resize(index + 1, EMPTY);
            }
            let slot = &mut slots[index];
            let serial = slot.serial.wrapping_add(1);
            *slot = Slot {
                object: this.object().as_ptr(),
                serial,
            };
            serial
        };
        entry.set(Some(Entry {
            table: Rc::clone(&self.0),
            number,
            serial,
        }));
    }

    /// The instance under a number, if it is alive.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<Object> {
        let object = self.0.borrow().get(number as usize)?.object;
        if object.is_null() {
            return None;
        }
        // SAFETY: the object holds the entry of this slot, and dropping that empties the slot before the memory is freed. No
        // reference is left of one that is being freed; it stays so.
        unsafe {
            if ffi::Py_REFCNT(object) <= 0 {
                return None;
            }
            ffi::Py_INCREF(object);
            Some(Object::from_owned(object))
        }
    }

    /// Forgets what is under a number; answers whether there was something.
    pub(crate) fn remove(&self, number: u32) -> bool {
        let mut slots = self.0.borrow_mut();
        let Some(slot) = slots
            .get_mut(number as usize)
            .filter(|slot| !slot.object.is_null())
        else {
            return false;
        };
        slot.object = std::ptr::null_mut();
        true
    }

    /// The instances that are alive, with their numbers.
    pub(crate) fn all(&self) -> Vec<(u32, Object)> {
        let end = self.0.borrow().len();
        let numbers = 0..u32::try_from(end).unwrap_or(u32::MAX);
        numbers
            .filter_map(|number| Some((number, self.get(number)?)))
            .collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut slots = self.table.borrow_mut();
        if let Some(slot) = slots.get_mut(self.number as usize)
            && slot.serial == self.serial
            && !slot.object.is_null()
        {
            slot.object = std::ptr::null_mut();
        }
    }
}
