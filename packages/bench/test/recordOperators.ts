// SPDX-License-Identifier: Apache-2.0
// Notes which exports of @flashinfer/core are called while something is observed.

let called: Set<string> | undefined;

/** Names of the exports that `run` calls. */
export function operatorsCalledBy(run: () => void): Set<string> {
  const names = new Set<string>();
  called = names;
  try {
    run();
  } finally {
    called = undefined;
  }
  return names;
}

type Exports = Readonly<Record<string, unknown>>;
type AnyFunction = (...args: never) => unknown;
type Class = new (...args: unknown[]) => { run?: (...args: unknown[]) => unknown };

const isClass = (value: unknown): value is Class => typeof value === 'function' && /^class\b/.test(String(value));

/** The same exports, whose calls are noted: of functions, and of `run()` where a class has one. */
export function recordOperators(exports: Exports): Exports {
  const classes = new Map(Object.entries(exports).flatMap(([name, value]) => (isClass(value) ? [[value, name]] : [])));
  const recorded = Object.entries(exports).map(([name, value]) => {
    if (isClass(value)) return [name, recordRuns(name, value, classes)];
    return [name, typeof value === 'function' ? recordCalls(name, value as AnyFunction) : value];
  });
  return Object.fromEntries(recorded);
}

function recordCalls(name: string, value: AnyFunction): AnyFunction {
  return new Proxy(value, {
    apply(target, thisArg, args) {
      called?.add(name);
      return Reflect.apply(target, thisArg, args);
    },
  });
}

/** What a class was made of runs with it, e.g. the steps of a pipe. */
function recordRuns(name: string, value: Class, classes: ReadonlyMap<Class, string>): Class {
  if (typeof value.prototype.run !== 'function') return value;
  return new Proxy(value, {
    construct(target, args, newTarget) {
      const instance = Reflect.construct(target, args, newTarget);
      const parts = args.flat().map((part) => classes.get((part as object | undefined)?.constructor as Class));
      instance.run = (...given: unknown[]) => {
        for (const each of [name, ...parts]) if (each !== undefined) called?.add(each);
        return target.prototype.run.apply(instance, given);
      };
      return instance;
    },
  });
}
