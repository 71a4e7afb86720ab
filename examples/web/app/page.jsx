export const dynamic = 'force-dynamic';

export default function Page() {
  return (
    <main>
      <h1>Hello from devsup</h1>
      <p>
        Served by process <code>{process.pid}</code> on port <code>{process.env.PORT}</code>.
      </p>
      <p>
        <code>devsup list</code> shows it, <code>devsup stop web</code> ends it.
      </p>
    </main>
  );
}
