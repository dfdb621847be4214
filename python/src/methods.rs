//! Methods that the interpreter calls without the cost of a general call.
//!
//! With the stable ABI of Python 3.9, PyO3 gets the arguments of every method as a tuple and a
//! dictionary, which costs as much as an append. Two conventions have no tuple: one positional
//! argument (`METH_O`), and an array with the names of its last ones (`METH_FASTCALL` with
//! `METH_KEYWORDS`). The second is part of the stable ABI since 3.10, and has not changed since
//! 3.7.

use std::ffi::{CStr, c_int};

use pyo3::exceptions::{PySystemError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

const METH_FASTCALL: c_int = 0x0080;

/// A function with an array of arguments: the positional ones, and those of a tuple of names.
pub(crate) type ArrayFunction = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// The C function of a method.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    OneArgument(ffi::PyCFunction),
    Array(ArrayFunction),
}

/// A result, as the interpreter takes it.
pub(crate) fn into_raw(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> *mut ffi::PyObject {
    match result {
        Ok(result) => result.into_ptr(),
        Err(error) => {
            // What is dropped where PyO3 is not attached, as here, it keeps for a later time, which
            // may never come. It does not attach any more while the interpreter ends.
            let mut error = Some(error);
            Python::try_attach(|py| error.take().map(|error| error.restore(py)));
            error.into_iter().for_each(|error| error.restore(py));
            std::ptr::null_mut()
        }
    }
}

/// Adds a method to a class. `doc` begins with the signature, as in C.
pub(crate) fn add(
    class: &Bound<'_, PyType>,
    name: &'static CStr,
    function: Function,
    doc: &'static CStr,
) -> PyResult<()> {
    let (pointer, flags) = match function {
        Function::OneArgument(function) => (function, ffi::METH_O),
        // SAFETY: the interpreter calls it with the type that the flags name.
        Function::Array(function) => unsafe {
            let pointer = std::mem::transmute::<ArrayFunction, ffi::PyCFunction>(function);
            (pointer, METH_FASTCALL | ffi::METH_KEYWORDS)
        },
    };
    // Leaked: the interpreter keeps a pointer to it as long as the class exists.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: pointer },
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: the class is a type object, and the definition lives for ever.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(class.py(), method)?
    };
    let name = name.to_str().map_err(|_| PySystemError::new_err("the name of a method"))?;
    class.setattr(name, method)
}

/// Lets annotations name a class with what it is of, such as `Reader[Record]`.
pub(crate) fn make_generic(class: &Bound<'_, PyType>) -> PyResult<()> {
    let alias = class.py().import("types")?.getattr("GenericAlias")?;
    let method = class.py().import("builtins")?.call_method1("classmethod", (alias,))?;
    class.setattr("__class_getitem__", method)
}

/// One positional argument, and an optional one that `name` names.
///
/// # Safety
///
/// The arguments are those of a call of an [`ArrayFunction`].
pub(crate) unsafe fn one_and_named<'a, 'py>(
    py: Python<'py>,
    (arguments, count, names): (&'a *const *mut ffi::PyObject, isize, &'a *mut ffi::PyObject),
    name: &Bound<'py, PyString>,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
    if count != 1 {
        let message = format!("takes exactly one positional argument ({count} given)");
        return Err(PyTypeError::new_err(message));
    }
    // SAFETY: there is one positional argument, as checked above.
    let first = unsafe { Bound::from_borrowed_ptr(py, **arguments) };
    if names.is_null() {
        return Ok((first, None));
    }
    // SAFETY: it is no null, and so a tuple of strings.
    let names = unsafe { Bound::ref_from_ptr(py, names).cast_unchecked::<PyTuple>() };
    let mut named = None;
    for (at, given) in names.iter().enumerate() {
        if !given.is(name) && !given.eq(name)? {
            let message = format!("got an unexpected keyword argument '{given}'");
            return Err(PyTypeError::new_err(message));
        }
        // SAFETY: each name has an argument after the positional ones.
        named = Some(unsafe { Bound::from_borrowed_ptr(py, *arguments.add(1 + at)) });
    }
    Ok((first, named))
}
