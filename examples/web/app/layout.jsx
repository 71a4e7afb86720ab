export const metadata = { title: 'devsup example' };

const body = {
  margin: 0,
  minHeight: '100vh',
  display: 'grid',
  placeItems: 'center',
  fontFamily: 'system-ui, sans-serif',
  lineHeight: 1.5,
  color: '#1c1c1e',
  background: '#fafafa',
};

export default function RootLayout({ children }) {
  return (
    <html lang="en">
      <body style={body}>{children}</body>
    </html>
  );
}
