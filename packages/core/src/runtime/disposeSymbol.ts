// SPDX-License-Identifier: Apache-2.0

/**
 * `Symbol.dispose`, defined where the runtime lacks it (Node 20 before 20.4): `using` finds it under this name.
 * A value rather than a bare side effect, so that a bundler cannot drop the definition.
 */
export const disposeSymbol: typeof Symbol.dispose = Symbol.dispose ?? defineDisposeSymbol();

function defineDisposeSymbol(): typeof Symbol.dispose {
  Object.defineProperty(Symbol, 'dispose', { value: Symbol.for('nodejs.dispose') });
  return Symbol.dispose;
}
