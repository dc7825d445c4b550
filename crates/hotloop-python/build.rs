//! Makes `Py_3_12` and the like usable in `cfg`, so that a layout or call of one CPython is chosen by name.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
