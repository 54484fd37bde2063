//! Host side of the contract, generated from `wit/` at compile time. Batches are lent to the guest, not copied on the way to it.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "millstream:plugin/lookups.[method]lookup.get": trappable,
        "millstream:plugin/state.[method]store.get": trappable,
        "millstream:plugin/state.[method]store.put": trappable,
    },
});
